"""The protocol of gRPC, version 1: `predictor.proto`, and what protoc makes of it (``make proto``)."""

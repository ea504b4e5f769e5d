"""Ask the server of the README's walk-through for forecasts, and record what turned out to be true.

``umbel serve growth …`` must be running, with models of `gdp.py`. Six callers ask for each country; the truth is the
growth of the five years that no model has seen, so `umbel ab growth` has something to compare.

    python examples/ask_gdp.py --url http://127.0.0.1:8000 --store umbel-store
"""

from __future__ import annotations

import argparse
import json
import urllib.error
import urllib.request

from gdp_data import panel

import umbel

CALLERS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask for forecasts, and record what turned out to be true.")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--store", default="umbel-store")
    parser.add_argument("--model", default="growth")
    arguments = parser.parse_args()
    try:
        ask(arguments)
    except urllib.error.HTTPError as error:
        parser.exit(1, f"{error.url} answers {error.code}: {error.read().decode(errors='replace')[:500]}\n")
    except (urllib.error.URLError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        start = f"umbel serve {arguments.model} --store {arguments.store} starts one"
        parser.exit(1, f"no server answers at {arguments.url} ({reason}); {start}\n")


def ask(arguments: argparse.Namespace) -> None:
    with urllib.request.urlopen(f"{arguments.url}/v1/models/{arguments.model}/groups") as answer:
        served = set(json.load(answer)["groups"])
    asked: list[str] = []
    truths: list[list[float]] = []
    for caller in range(CALLERS):
        for country, growth in panel().held_out.items():
            if country not in served:
                continue
            body = json.dumps({"inputs": len(growth), "key": f"caller {caller} of {country}"}).encode()
            request = urllib.request.Request(
                f"{arguments.url}/v1/models/{arguments.model}/groups/{country}:predict", body
            )
            with urllib.request.urlopen(request) as answer:
                asked.append(json.load(answer)["request_id"])
            truths.append(growth.tolist())
    umbel.record_outcomes(arguments.model, {"request_id": asked, "outcome": truths}, store=arguments.store)
    print(f"{len(asked)} forecasts asked for, and their outcomes recorded")


if __name__ == "__main__":
    main()

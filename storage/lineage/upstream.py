"""What was this trial, model or value made from? The tree of all that went into it, back to the data that were read.

Put together of what a run has recorded: which element of which node each argument was, the digests of values, code,
environment and sources. It reads only what lies on the way, must not run anything, and must not write. How a tree is
drawn is in `umbel.storage.lineage.view`; the other direction is `umbel.storage.lineage.downstream`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc

from umbel.scheduler.errors import NotFoundError, StoreError, UsageError
from umbel.storage import layout
from umbel.storage.documents import read_document
from umbel.storage.lineage.tree import Lineage
from umbel.storage.objects.interface import ObjectStore
from umbel.storage.runs.graph_record import GraphRecord, NodeRecord
from umbel.storage.runs.trial_rows import NOT_RUN, read_trials, trials_numbered
from umbel.storage.runs.value_rows import read_elements
from umbel.storage.values.artifacts import get_artifact
from umbel.storage.values.codecs import decode
from umbel.storage.values.columns import int_values, python_rows

__all__ = ["LineageReader"]

#: Of a whole fan-out that is one argument, as many elements are followed one by one; the others are counted.
ELEMENTS_LIMIT = 25
_VALUE_COLUMNS = (
    "status",
    "error",
    "digest",
    "format",
    "size",
    "length",
    "model",
    "attempt",
    "started",
    "host",
    "source",
    "code",
)
_HEX = frozenset("0123456789abcdef")


class LineageReader:
    """Finds lineages in one run.

    Args:
        objects: the store.
        record: the content of run.json.
        graph: the run's graph, with what it has revealed.
        environment_of: gives the digest of the environment of a host's workers, or of the driver's (None).
    """

    def __init__(
        self,
        objects: ObjectStore,
        record: Mapping[str, Any],
        graph: GraphRecord,
        environment_of: Callable[[str | None], str | None],
    ) -> None:
        self._environment_of = environment_of
        self._objects = objects
        self._record = record
        self._graph = graph
        self._entries: dict[str, Mapping[str, Any]] = {
            str(entry["name"]): entry for entry in (record.get("graph") or {}).get("nodes") or []
        }
        self._rows: dict[str, dict[int, dict[str, Any]]] = {}
        self._code: dict[str, Lineage] = {}
        self._arguments: dict[tuple[str, str], Lineage] = {}

    # ---- what is asked for ---------------------------------------------------------------------------------

    def find(self, x: object, node: object = None) -> Lineage:
        """The lineage of a trial, element, node, value or model; see `Run.lineage`."""
        if x is None:
            return self._of_node(self._graph.node(node).name) if node is not None else self.run_itself()
        if isinstance(x, (int, np.integer)) and not isinstance(x, bool):
            found = self._graph.sweep(None) if node is None else self._graph.node(node)
            return self.element(found.name, int(x))
        if isinstance(x, Mapping) and "trial" in x:
            return self.element(self._graph.sweep(x.get("sweep", node)).name, int(x["trial"]))
        if isinstance(x, Mapping) and "element" in x and node is not None:
            return self.element(self._graph.node(node).name, int(x["element"]))
        if isinstance(x, Mapping) and "node" in x and "index" in x:  # a row of failures or models
            return self.element(str(x["node"]), int(x["index"]))
        if isinstance(trial := getattr(x, "trial", None), int):  # umbel.Best
            return self.element(self._graph.sweep(node).name, trial)
        name = x if isinstance(x, str) else getattr(x, "name", None)
        if isinstance(name, str):
            return self._named(name)
        raise UsageError(
            "a lineage is asked for something else than this",
            got=repr(x)[:200],
            expected="the index of a trial, a row of a table, a node, or the digest of a model or value",
        )

    def _named(self, text: str) -> Lineage:
        if text in self._graph.nodes:
            node = self._graph.node(text)
            single = node.sweep is None and node.kind == "task"
            return self.element(text, 0) if single else self._of_node(text)
        name, _, number = text.rpartition(":")
        if name in self._graph.nodes and number.isdecimal():
            return self.element(name, int(number))
        if len(text) >= 8 and set(text) <= _HEX:
            return self._by_digest(text)
        return self.element(self._graph.node(text).name, 0)  # raises, with names that are near

    def _by_digest(self, digest: str) -> Lineage:
        """What has this digest, or one that begins so: a model, or the value of an element."""
        for node in self._graph.nodes.values():
            index = "trial" if node.sweep is not None else "element"
            if node.sweep is not None:
                rows = read_trials(self._objects, self._graph.run_id, node.sweep, ["model"])
            else:
                rows = read_elements(self._objects, self._graph.run_id, node, ["digest", "model"])
            for column, kind in (("model", "model"), ("digest", "value")):
                if column not in rows.column_names:
                    continue
                hits = rows.filter(pc.starts_with(pc.cast(rows[column], "string"), digest))
                if len(hits):
                    made_by = self.element(node.name, int(int_values(hits[index])[0]))
                    full = hits[column][0].as_py()
                    if kind == "value":
                        return made_by
                    return Lineage("model", f"model of {made_by.name}", full, (), (made_by,))
        raise NotFoundError(
            f"the run {self._graph.run_id!r} has no model or value of this digest",
            got=digest,
            hint="run.models() and run.elements(node) list them",
        )

    # ---- elements ------------------------------------------------------------------------------------------

    def element(self, name: str, index: int) -> Lineage:
        """The lineage of one trial, or of one element of a node.

        Raises:
            NotFoundError: there is no such trial or element, or it has not ended.
        """
        if index not in self._rows_of(name, [index]):
            what = "trial" if self._graph.node(name).sweep is not None else "element"
            raise NotFoundError(f"{name!r} has no {what} {index} that has ended", got=index)
        # First what is needed of each node, last nodes first; then the things, first nodes first: no recursion, for
        # chains may be long.
        needed: dict[str, dict[int, None]] = {each: {} for each in self._entries}
        needed[name][index] = None
        sources: dict[tuple[str, int], list[tuple[str, list[int], int]]] = {}
        for each in reversed(list(self._entries)):
            if needed[each]:
                self._rows_of(each, list(needed[each]))
            for element in needed[each]:
                found = sources[each, element] = list(self._sources(each, element))
                for source, elements, _ in found:
                    needed[source].update(dict.fromkeys(elements))
        things: dict[tuple[str, int], Lineage] = {}
        for each, elements_needed in needed.items():
            for element in elements_needed:
                inputs: list[Lineage] = []
                for source, elements, more in sources[each, element]:
                    inputs += [things[source, number] for number in elements if (source, number) in things]
                    if more:
                        inputs.append(Lineage("more", f"and {more:,} more of {source}"))
                things[each, element] = self._thing(each, element, inputs)
        root = things[name, index]
        row = self._rows.get(name, {}).get(index) or {}
        return Lineage(root.kind, root.name, root.digest, root.facts, (*root.inputs, self._run(row.get("host"))))

    def _sources(self, name: str, element: int) -> Iterator[tuple[str, list[int], int]]:
        """The elements of other nodes that went into one: (node, elements, how many more)."""
        entry = self._entries[name]
        if entry["kind"] in ("best", "top"):
            (argument,) = entry["arguments"]
            chosen = self._chosen(name, element)
            yield str(argument["node"]), chosen, 0
            return
        group = element // int(entry["sweep"]["trials"]) if entry.get("sweep") else element
        for argument in entry.get("arguments") or ():
            source = argument.get("node")
            if source is None:
                continue
            if argument["kind"] == "each":
                size = self._size(source)
                yield source, [group // int(argument.get("repeat", 1)) % size] if size else [], 0
            elif argument["kind"] == "all":
                size = self._size(source)
                yield source, list(range(min(size, ELEMENTS_LIMIT))), max(0, size - ELEMENTS_LIMIT)
            else:  # one value for all, an item of a list, or the list that groups are made of
                yield source, [0], 0

    def _chosen(self, name: str, element: int) -> list[int]:
        """The trials that a node of best trials chose."""
        rows = read_elements(
            self._objects, self._graph.run_id, self._graph.node(name), ("status", "digest", "payload")
        ).filter(pc.field("element") == element)
        if not len(rows) or rows["digest"][0].as_py() is None:
            return []
        payload = rows["payload"][0].as_py()
        try:
            value = get_artifact(self._objects, rows["digest"][0].as_py()) if payload is None else decode(payload)
        except StoreError:
            return []  # made by another version of Umbel, say: the tree ends here
        return [best.trial for best in (value if isinstance(value, list) else [value]) if hasattr(best, "trial")]

    def _thing(self, name: str, element: int, inputs: list[Lineage]) -> Lineage:
        entry = self._entries[name]
        row = self._rows.get(name, {}).get(element)
        made_from = [*self._literals(name), *inputs, *self._code_of(name)]
        if row is None:
            return Lineage("value", _element_name(entry, element), None, (("status", "not ended"),), tuple(made_from))
        if entry.get("sweep"):
            names = entry["sweep"].get("group_names") or []
            config = {key[7:]: value for key, value in row.items() if key.startswith("config_") and value is not None}
            groups = {key: row[key] for key in names if key in row}
            made_from.insert(
                0, Lineage("config", "config", None, _facts({**groups, **config, "seed": row.get("seed")}))
            )
            metrics = {key[7:]: value for key, value in row.items() if key.startswith("metric_") and value is not None}
            kept = {"status": _status(row)} | {
                key: row.get(key)
                for key in ("attempt", "started", "host", "data", "model", "reused_from", "borrowed_from")
            }
            facts = _facts({**groups, **metrics, **kept})
            return Lineage("trial", f"trial {element} of {name}", row.get("key"), facts, tuple(made_from))
        source = row.get("source")
        if source:
            described = json.loads(source)
            facts = _facts({key: value for key, value in described.items() if key not in ("url", "parts")})
            made_from.append(Lineage("source", str(described.get("url")), None, facts))
        kept = {"status": _status(row)} | {
            key: row.get(key) for key in ("format", "size", "attempt", "started", "host", "model", "reused_from")
        }
        return Lineage("value", _element_name(entry, element), row.get("digest"), _facts(kept), tuple(made_from))

    # ---- whole nodes ---------------------------------------------------------------------------------------

    def run_itself(self) -> Lineage:
        """The lineage of a whole run: of the nodes that no other uses."""
        used = {name for entry in self._entries.values() for name in entry.get("inputs") or ()}
        ends = [name for name in self._entries if name not in used]
        things = self._nodes(ends)
        run = self._run()
        return Lineage("run", run.name, None, run.facts, (*(things[name] for name in ends), *run.inputs))

    def _of_node(self, name: str) -> Lineage:
        node = self._nodes([name])[name]
        return Lineage(node.kind, node.name, node.digest, node.facts, (*node.inputs, self._run()))

    def _nodes(self, wanted: list[str]) -> dict[str, Lineage]:
        needed = set(wanted)
        for name in reversed(list(self._entries)):
            if name in needed:
                needed.update(self._entries[name].get("inputs") or ())
        things: dict[str, Lineage] = {}
        for name, entry in self._entries.items():
            if name not in needed:
                continue
            inputs = [things[source] for source in dict.fromkeys(entry.get("inputs") or ())]
            facts = {"kind": entry["kind"], "elements": self._size(name)}
            sources: list[Lineage] = []
            if not entry.get("sweep"):
                rows = read_elements(self._objects, self._graph.run_id, self._graph.node(name), ["digest", "source"])
                digests = [digest for digest in rows["digest"].to_pylist() if digest] if len(rows) else []
                facts["distinct values"] = len(set(digests))
                if "source" in rows.column_names:
                    found = {text: json.loads(text) for text in rows["source"].to_pylist() if text}
                    sources = [
                        Lineage(
                            "source", str(each.get("url")), None, _facts({k: each.get(k) for k in ("rows", "query")})
                        )
                        for each in list(found.values())[:ELEMENTS_LIMIT]
                    ]
                digest = digests[0] if len(digests) == 1 else None
            else:
                digest = None
            made_from = (*self._literals(name), *inputs, *sources, *self._code_of(name))
            things[name] = Lineage("node", _node_name(entry, self._size(name)), digest, _facts(facts), made_from)
        return things

    # ---- parts ---------------------------------------------------------------------------------------------

    def _size(self, name: str) -> int:
        return self._graph.node(name).size or 0

    def _rows_of(self, name: str, elements: list[int]) -> dict[int, dict[str, Any]]:
        """The rows of some elements of a node, by number."""
        held = self._rows.setdefault(name, {})
        missing = [element for element in elements if element not in held]
        if missing:
            node: NodeRecord = self._graph.node(name)
            if node.sweep is not None:
                table = trials_numbered(self._objects, self._graph.run_id, node.sweep, np.asarray(missing, np.int64))
                held.update({int(row["trial"]): row for row in python_rows(table)})
            else:
                table = read_elements(self._objects, self._graph.run_id, node, _VALUE_COLUMNS)
                held.update({int(row["element"]): row for row in python_rows(table)})
        return held

    def _literals(self, name: str) -> list[Lineage]:
        """The plain values among a node's arguments."""
        found = []
        for position, argument in enumerate(self._entries[name].get("arguments") or (), 1):
            if argument.get("node") is None and argument["kind"] != "axis":
                label = f"argument {argument.get('name') or position} of {name}"
                known = self._arguments.setdefault(
                    (name, label), Lineage("argument", label, argument.get("digest"), _facts({"for": argument["kind"]}))
                )
                found.append(known)
        return found

    def _code_of(self, name: str) -> list[Lineage]:
        entry = self._entries[name]
        digest = entry.get("code")
        if digest is None:
            return []
        if name not in self._code:
            git = self._record.get("git") or {}
            facts = {"functions": len(entry.get("code_parts") or ()), "sources": self._record.get("source")}
            facts |= {"commit": git.get("commit"), "changed since": git.get("dirty")} if git else {}
            self._code[name] = Lineage("code", f"code of {name}", digest, _facts(facts))
        return [self._code[name]]

    def _run(self, host: str | None = None) -> Lineage:
        record = self._record
        facts = {key: record.get(key) for key in ("created", "user", "host", "job")}
        facts["command"] = " ".join(record.get("command") or ())
        facts["store"] = self._objects.url
        return Lineage(
            "run", f"run {record.get('name', record.get('id'))}", None, _facts(facts), self._environment(host)
        )

    def _environment(self, host: str | None) -> tuple[Lineage, ...]:
        digest = self._environment_of(host)
        if not isinstance(digest, str):
            return ()
        found = read_document(self._objects, layout.environment(digest)) or {}
        facts = {key: found.get(key) for key in ("python", "system", "machine", "image")}
        facts["packages"] = len(found.get("packages") or ())
        facts["ray"] = (found.get("packages") or {}).get("ray")
        return (Lineage("environment", "environment", digest, _facts(facts)),)


def _status(row: Mapping[str, Any]) -> Any:
    """How an element ended; one that another's failure kept from running did not fail itself."""
    return "not run" if str(row.get("error") or "").startswith(NOT_RUN) else row.get("status")


def _facts(known: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((key, value) for key, value in known.items() if value is not None and value != "")


def _element_name(entry: Mapping[str, Any], element: int) -> str:
    return str(entry["name"]) if entry["kind"] == "task" else f"{entry['name']}[{element}]"


def _node_name(entry: Mapping[str, Any], size: int) -> str:
    if entry.get("sweep"):
        return f"sweep {entry['name']} × {size:,}"
    return str(entry["name"]) if entry["kind"] == "task" else f"{entry['name']} × {size:,}"

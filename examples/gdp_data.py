"""What do trials know, and what is kept from them? The Penn World Table as training years and held-out years.

A module of its own, so that each worker imports it and reads the file once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from forecasting import HORIZON, Floats, Series

__all__ = ["DATA", "Panel", "panel"]

DATA = Path(__file__).resolve().parent / "data" / "pwt91.parquet"
GROWTH_OF = ("pop", "emp", "rnna")


@dataclass(frozen=True)
class Panel:
    """All countries, by ISO code in alphabetical order."""

    #: What the country's trials and its model are fitted on.
    training: dict[str, Series]
    #: Growth in the held-out years.
    held_out: dict[str, Floats]
    #: The country's name.
    names: dict[str, str]
    #: The first and the last held-out year, the same for all countries.
    held_out_years: tuple[int, int]


@functools.cache
def panel() -> Panel:
    """Read the file, once a process (about 20 ms), and cut every country at the same year, `HORIZON` before the end.

    The world's growth is the median over the countries in each year up to the cut, so that no country's held-out years
    reach another's covariates either.
    """
    table = pq.read_table(DATA, columns=["isocode", "country", "year", "rgdpna", "csh_i", *GROWTH_OF])
    table = table.filter(table["rgdpna"].is_valid()).sort_by([("isocode", "ascending"), ("year", "ascending")])
    columns = {name: table[name].to_numpy() for name in table.column_names}
    codes, starts = np.unique(columns["isocode"], return_index=True)
    stops = np.append(starts[1:], len(table))
    cut = int(columns["year"].max()) - HORIZON

    growths: dict[str, dict[str, Floats]] = {}
    for code, start, stop in zip(codes, starts, stops, strict=True):
        rows = slice(start, stop)
        country = {name: np.diff(np.log(columns[name][rows])) for name in ("rgdpna", *GROWTH_OF)}
        growths[str(code)] = country | {"year": columns["year"][rows][1:], "csh_i": columns["csh_i"][rows][1:]}

    by_year: dict[int, list[float]] = {}
    for country in growths.values():
        for year, growth in zip(country["year"], country["rgdpna"], strict=True):
            if year <= cut:
                by_year.setdefault(int(year), []).append(growth)
    world = {year: float(np.median(values)) for year, values in by_year.items()}

    training, held_out = {}, {}
    for code, country in growths.items():
        before = country["year"] <= cut
        years = country["year"][before].astype(np.int64)
        covariates = {name: country[name][before] for name in (*GROWTH_OF, "csh_i")}
        covariates["world"] = np.array([world[year] for year in years.tolist()])
        training[code] = Series(code, years, country["rgdpna"][before], covariates)
        held_out[code] = country["rgdpna"][~before]
    names = dict(zip(codes.tolist(), columns["country"][starts].tolist(), strict=True))
    return Panel(training, held_out, names, (cut + 1, cut + HORIZON))

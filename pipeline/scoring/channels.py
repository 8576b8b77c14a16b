"""Channels: which name of a source feeds which place, by a map file or in order of appearance."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from zlib import crc32

from pipeline.errors import EntryError, Reason, SettingsError
from pipeline.partition import is_channel
from pipeline.scoring.parameters import CHANNELS, NODES

VISION = (
    "vision.people",
    "vision.people_changes",
    "vision.vehicles",
    "vision.animals",
    "vision.objects",
    "vision.class_surprise",
    "vision.motion",
    "vision.spread",
)
"""What frames feed, in this order; a map file places them by these names."""
_VISION_SUMS = frozenset({"vision.people_changes"})
VISION_NODES = ("people", "vehicles+animals", "objects", "scene")
ROOM_BESIDE_FRAMES = 8
FREE_PLACES = (8, 10, 12, 14, 9, 11, 13, 15, 6, 7, 4, 5, 2, 3, 0, 1)
"""Places of freely named channels: first a node each, then its second place, then vision's."""
CATCH_ALL = "*"
MAP_VERSION = 1
MAP_BIN_MS = (10, 60_000)
"""As of `PERCIPIO_BIN_MS`."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Where values of one name go.

    Attributes:
        place: 0 to 15; places 2 g and 2 g + 1 form node g.
        mean: average the values of a bin instead of adding them.
        signed: negative values are valid.
    """

    place: int
    mean: bool = False
    signed: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class ChannelMap:
    """A fixed assignment for the sources that match a pattern.

    Attributes:
        sources: shell pattern; `*` alone matches every source.
        channels: name -> channel; `*` takes every name that is not listed.
        nodes: names of the nodes that have been given one.
        bin_ms: width of a bin, None for the deployment's.
        digest: 32 bits, not 0, that differ when the assignment does.
    """

    sources: str
    channels: Mapping[str, Channel]
    nodes: Mapping[int, str] = field(default_factory=dict)
    bin_ms: int | None = None
    digest: int = 0

    def __post_init__(self) -> None:
        """Check places and kinds, and compute the digest."""
        kinds: dict[int, bool] = {}
        for name, channel in self.channels.items():
            if name != CATCH_ALL and not is_channel(name):
                raise SettingsError(f"channel map {self.sources}: {name!r} is no channel name")
            if not 0 <= channel.place < CHANNELS:
                raise SettingsError(
                    f"channel map {self.sources}: place {channel.place} of {name}, must be 0 to 15"
                )
            if kinds.setdefault(channel.place, channel.mean) != channel.mean:
                raise SettingsError(
                    f"channel map {self.sources}: place {channel.place} is both sum and mean"
                )
        low, high = MAP_BIN_MS
        if self.bin_ms is not None and not low <= self.bin_ms <= high:
            raise SettingsError(
                f"channel map {self.sources}: bin_ms {self.bin_ms}, must be {low} to {high}"
            )
        facts = repr(sorted((n, c.place, c.mean, c.signed) for n, c in self.channels.items()))
        facts += f" {self.bin_ms}" if self.bin_ms else ""
        object.__setattr__(self, "digest", crc32(facts.encode()) or 1)

    @property
    def pair_nodes(self) -> tuple[int, ...]:
        """The nodes that are correlated: four of what is seen, then four of what is reported.

        Where there are fewer, other nodes stand in, whose correlation is not looked at.
        """
        seen = {c.place // 2 for name, c in self.channels.items() if name in VISION}
        told = {c.place // 2 for name, c in self.channels.items() if name not in VISION}
        fill = sorted(set(range(NODES)) - seen, key=lambda g: (g in told, -g))
        first = [*sorted(seen, key=lambda g: (g in told, g)), *fill][:4]
        others = [g for g in range(NODES) if g not in first]
        return (*first, *sorted(others, key=lambda g: (g not in told, g in seen, g)))

    @property
    def declared(self) -> int:
        """Mask of the places that can be fed."""
        return _mask(c.place for c in self.channels.values())

    @property
    def mean_kind(self) -> int:
        """Mask of the places that average."""
        return _mask(c.place for c in self.channels.values() if c.mean)


def _mask(places: Any) -> int:
    mask = 0
    for place in places:
        mask |= 1 << place
    return mask


@dataclass(frozen=True, slots=True)
class ChannelMaps:
    """All maps of a deployment; the first whose pattern matches a source is its map."""

    maps: tuple[ChannelMap, ...] = ()

    def of(self, source: str) -> ChannelMap | None:
        """Give the map of a source, None for free naming."""
        for candidate in self.maps:
            if fnmatchcase(source, candidate.sources):
                return candidate
        return None

    @classmethod
    def parse(cls, text: str, where: str) -> ChannelMaps:
        """Read the text of a map file (TOML, `version = 1`, one `[[map]]` per source pattern).

        Raises:
            SettingsError: it is not TOML, of another version, or wrong; says `where`.
        """
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{where}: {error}") from error
        version = content.pop("version", None)
        if version != MAP_VERSION:
            raise SettingsError(f"{where}: version {version}, must be {MAP_VERSION}")
        tables = content.pop("map", [])
        if content or not isinstance(tables, list):
            raise SettingsError(f"{where}: unknown keys {sorted(content)}")
        return cls(tuple(_parse(table, where) for table in tables))


def _parse(table: Any, where: str) -> ChannelMap:
    if not isinstance(table, dict) or not isinstance(table.get("sources"), str):
        raise SettingsError(f"{where}: every [[map]] needs `sources`, a pattern")
    unknown = sorted(table.keys() - {"sources", "channels", "nodes", "bin_ms"})
    if unknown:
        raise SettingsError(f"{where}: unknown keys {unknown}")
    nodes = table.get("nodes", {})
    channels = table.get("channels", {})
    bin_ms = table.get("bin_ms")
    if not isinstance(channels, dict) or not isinstance(nodes, dict):
        raise SettingsError(f"{where}: `channels` and `nodes` are tables")
    if bin_ms is not None and type(bin_ms) is not int:
        raise SettingsError(f"{where}: `bin_ms` is a whole number of milliseconds")
    placed = {name: _channel(name, entry, where) for name, entry in channels.items()}
    labels = {_node(key, where): str(label) for key, label in nodes.items()}
    try:
        return ChannelMap(table["sources"], placed, labels, bin_ms)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error


def _node(key: str, where: str) -> int:
    if not key.isdecimal() or not 0 <= int(key) < NODES:
        raise SettingsError(f"{where}: node {key!r}, must be 0 to {NODES - 1}")
    return int(key)


def _channel(name: str, entry: Any, where: str) -> Channel:
    if isinstance(entry, int) and not isinstance(entry, bool):
        entry = {"place": entry}
    if not isinstance(entry, dict) or entry.keys() - {"place", "kind", "signed"}:
        raise SettingsError(f"{where}: channel {name} takes place, kind and signed")
    default = "mean" if name in VISION and name not in _VISION_SUMS else "sum"
    place, kind = entry.get("place"), entry.get("kind", default)
    signed = entry.get("signed", False)
    if type(place) is not int or kind not in ("sum", "mean") or not isinstance(signed, bool):
        raise SettingsError(
            f"{where}: channel {name}: place 0 to 15, kind sum or mean, signed true or false"
        )
    return Channel(place, kind == "mean", signed)


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which names of one source go where, as known so far; shared by all sources that agree.

    Attributes:
        names: freely named channels, in order of first appearance.
        seen: the source has sent a frame.
        fixed: the source's map, None for free naming.
    """

    names: tuple[str, ...] = ()
    seen: bool = False
    fixed: ChannelMap | None = None

    @property
    def bin_ms(self) -> int | None:
        """Width of a bin, None for the deployment's."""
        return None if self.fixed is None else self.fixed.bin_ms

    def channel(self, name: str) -> Channel | None:
        """Look a name up, without giving it a place."""
        if self.fixed is not None:
            channels = self.fixed.channels
            return channels.get(name) or channels.get(CATCH_ALL)
        if name in self.names:
            return Channel(FREE_PLACES[self.names.index(name)])
        return None

    def with_names(self, names: list[str]) -> Assignment:
        """Give the assignment with new names placed.

        Raises:
            EntryError: there is no room for all of them; none is placed then.
        """
        if self.fixed is not None:
            raise EntryError(
                Reason.BAD_FIELD,
                f"channel {names[0]!r} is not in the channel map for {self.fixed.sources}",
            )
        room = ROOM_BESIDE_FRAMES if self.seen else CHANNELS
        if len(self.names) + len(names) > room:
            beside = " beside its frames" if self.seen else ""
            raise EntryError(
                Reason.BAD_FIELD,
                f"no room for channel {names[0]!r}: a source without a channel map has {room} "
                f"names{beside}, in use: {', '.join(self.names) or 'none'}",
            )
        return Assignment(self.names + tuple(names), self.seen, None)

    def with_frames(self) -> Assignment:
        """Give the assignment of a source that sends frames."""
        return Assignment(self.names, True, self.fixed)

    def vision_places(self) -> tuple[Channel | None, ...]:
        """Give the eight vision channels; None where event names hold the node or no map feeds it.

        A node is given up whole, so that no node mixes what is seen with what is reported.
        """
        if self.fixed is not None:
            return tuple(self.fixed.channels.get(name) for name in VISION)
        taken = {FREE_PLACES[k] // 2 for k in range(len(self.names))}
        return tuple(
            None if place // 2 in taken else Channel(place, name not in _VISION_SUMS)
            for place, name in enumerate(VISION)
        )

    def place_names(self) -> dict[int, str]:
        """Name the places that names feed; names that share one are joined by +."""
        if self.fixed is not None:
            placed = self.fixed.channels
        else:
            seen = zip(VISION, self.vision_places(), strict=True) if self.seen else ()
            placed = {name: channel for name, channel in seen if channel}
            placed |= {name: Channel(FREE_PLACES[k]) for k, name in enumerate(self.names)}
        names: dict[int, str] = {}
        for name, channel in sorted(placed.items()):
            told = names.get(channel.place)
            names[channel.place] = f"{told}+{name}" if told else name
        return names

    def node_names(self) -> tuple[str, ...]:
        """Name the eight nodes: given, or the names of their channels joined by +; `` if unused."""
        if self.fixed is not None:
            return tuple(
                self.fixed.nodes.get(g) or self._joined(self.fixed.channels, g)
                for g in range(NODES)
            )
        placed = {name: Channel(FREE_PLACES[k]) for k, name in enumerate(self.names)}
        labels = [self._joined(placed, g) for g in range(NODES)]
        if self.seen:
            for g, label in enumerate(VISION_NODES):
                labels[g] = labels[g] or label
        return tuple(labels)

    @staticmethod
    def _joined(channels: Mapping[str, Channel], node: int) -> str:
        names = [name for name, channel in channels.items() if channel.place // 2 == node]
        return "+".join(sorted(names, key=lambda name: (channels[name].place, name)))

    def modalities(self) -> tuple[str, ...]:
        """Tell for each node whether it holds what is seen, what is reported, or both."""
        seen = {c.place // 2 for c in self.vision_places() if c} if self.seen else set()
        if self.fixed is not None:
            seen = {c.place // 2 for n, c in self.fixed.channels.items() if n in VISION}
            told = {c.place // 2 for n, c in self.fixed.channels.items() if n not in VISION}
        else:
            told = {FREE_PLACES[k] // 2 for k in range(len(self.names))}
        kinds = {(True, False): "vision", (False, True): "event", (True, True): "both"}
        return tuple(kinds.get((g in seen, g in told), "") for g in range(NODES))

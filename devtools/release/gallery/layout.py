"""Places of a workflow's nodes: columns as groups, links above the columns that they pass, and the first view.

Everything is in the canvas's units, with the upper left corner at (0, 0): Nodes 2.0 enlarges a graph from there.
"""

from __future__ import annotations

from itertools import product
from typing import Any

Json = dict[str, Any]

WIDTH, GAP, COLUMN_GAP = 300, 52, 36
"""Width of a node; gaps between nodes of a column, title bars included, and between columns."""
PAD, TITLE = 10, 30
"""Space between a group's frame and its nodes, and the height of a title bar, of a group's or of a node's."""
PITCH = WIDTH + 2 * PAD + COLUMN_GAP
"""Distance of columns."""
LANE = 16
"""Distance of the links that run above the columns."""
LETTER, LINE = 6.3, 20
"""Width of a letter and height of a line of a note."""
EXTRA = {
    "CLIPTextEncode": 60,
    "LoadImage": 285,
    "LoadVideo": 200,
    "PreviewAny": 100,
    "SaveImage": 290,
    "MicroCinemaCentreFrame": 290,
    "KSampler": 220,
    "MicroCinemaSampler": 250,
    "MicroCinemaTSR": 250,
    "MicroCinemaPromptSchedule": 60,
    "MicroCinemaFrameCombine": 340,
    "SaveVideo": 290,
}
"""Height of what a node shows below its slots and widgets: text, a square picture or video, a live preview."""
AT_THE_END = {
    "KSampler": 0,
    "MicroCinemaCentreFrame": 130,
    "MicroCinemaSampler": 0,
    "MicroCinemaTSR": 0,
    "SaveImage": 130,
    "SaveVideo": 80,
}
"""The same for the last node of a column, which grows when it runs: the room below it stays free, in its group."""
COLOUR = "#3f789e"
VIEW, CORNER = (1250, 690), (75, 145)
"""Pixels of a 1600 x 1000 window that the front end leaves free, and their upper left corner. Nodes 2.0 shows a graph
1.2 times as large, so this is by so much smaller."""
SCALES = (0.58, 0.8)
"""Smallest and largest scale of the first view. Below the smallest, the front end shows no text."""


class Layout:
    """Columns of nodes from left to right."""

    def __init__(self) -> None:
        self._titles: list[str] = []
        self._heights: list[int] = []
        self._room: list[int] = []
        self._last: Json | None = None
        self._column: dict[int, int] = {}
        self._note: Json | None = None

    def column(self, title: str) -> None:
        """Begin a column."""
        self._end_column()
        self._titles.append(title)
        self._heights.append(TITLE + PAD)
        self._room.append(0)

    def place(self, node: Json) -> None:
        """Give a node its size, and its place below the last one of the column; `finish` moves the column."""
        height = node_height(node)
        self._column[node["id"]] = len(self._titles) - 1
        node["pos"], node["size"] = [PAD, self._heights[-1] + TITLE], [WIDTH, height]
        self._heights[-1] += height + GAP
        self._last = node

    def _end_column(self) -> None:
        """Shorten the last node of the column, and note the room that it needs below when it has run."""
        kind = self._last["type"] if self._last else ""
        if self._last and kind in AT_THE_END:
            less = EXTRA[kind] - AT_THE_END[kind]
            self._last["size"][1] -= less
            self._heights[-1] -= less
            self._room[-1] = less
        self._last = None

    def note(self, number: int, text: str) -> Json:
        """Return a note with this id and Markdown: below one or two columns that leave room, else left of all."""
        self._end_column()
        left, top, width = self._room_for(text)
        self._note = {
            "id": number, "type": "MarkdownNote", "pos": [left, top + TITLE],
            "size": [width, note_height(text, width)], "flags": {}, "order": number - 1, "mode": 0,
            "inputs": [], "outputs": [], "title": "Read me", "properties": {},
            "widgets_values": [text], "color": "#432", "bgcolor": "#653",
        }  # fmt: skip
        return self._note

    def _room_for(self, text: str) -> tuple[int, int, int]:
        """Return left, top and width of a note; `left` is below 0 where it stands left of all columns."""
        # A preview that grows over the note is better than a graph too wide to read.
        for heights, span in product((self._grown, self._heights), (1, 2)):
            width = span * PITCH - COLUMN_GAP
            for start in range(len(heights) - span + 1):
                top = max(heights[start : start + span]) + PAD
                if top + TITLE + note_height(text, width) <= max(self._heights):
                    return start * PITCH, top, width
        return -PITCH, 0, PITCH - COLUMN_GAP

    @property
    def _grown(self) -> list[int]:
        """The heights of the columns when their last nodes have run."""
        return [height + room for height, room in zip(self._heights, self._room, strict=True)]

    def finish(self, nodes: list[Json], links: list[list[Any]]) -> Json:
        """Move the nodes to their places; return groups, reroutes and the first view."""
        self._end_column()
        lanes = self._lanes(links)
        top = LANE * (len(lanes) + 1) if lanes else 0
        left = PITCH if self._note and self._note["pos"][0] < 0 else 0
        lefts = [left + place * PITCH for place in range(len(self._titles))]
        for node in nodes:
            column = self._column.get(node["id"])
            across = left if column is None else lefts[column]
            node["pos"] = [node["pos"][0] + across, node["pos"][1] + top]
        groups = [
            {"id": number + 1, "title": title, "color": COLOUR, "font_size": 24, "flags": {},
             "bounding": [lefts[number], top, PITCH - COLUMN_GAP, self._grown[number]]}
            for number, title in enumerate(self._titles)
        ]  # fmt: skip
        lowest = [top + height for height in self._heights]
        if self._note:
            lowest.append(self._note["pos"][1] + self._note["size"][1])
        view = _view(lefts[-1] + PITCH - COLUMN_GAP, max(lowest))
        return {"groups": groups, "extra": {**view, **self._reroutes(lanes, lefts)}}

    def _lanes(self, links: list[list[Any]]) -> dict[tuple[int, int], list[list[Any]]]:
        """Return the links that pass a column, by the output that they come from."""
        lanes: dict[tuple[int, int], list[list[Any]]] = {}
        for link in links:
            if self._column[link[3]] - self._column[link[1]] > 1:
                lanes.setdefault((link[1], link[2]), []).append(link)
        return lanes

    def _reroutes(self, lanes: dict[tuple[int, int], list[list[Any]]], lefts: list[int]) -> Json:
        """Return a way above the columns for each link that passes one."""
        points: list[Json] = []
        ends: list[Json] = []
        for lane, ((origin, _), links) in enumerate(lanes.items()):
            height = LANE * lane + LANE // 2
            start = len(points) + 1
            right = lefts[self._column[origin]] + PITCH - COLUMN_GAP
            points.append(
                {"id": start, "pos": [right + 10 + 4 * lane, height], "linkIds": [link[0] for link in links]}
            )
            for column in sorted({self._column[link[3]] for link in links}):
                there = [link[0] for link in links if self._column[link[3]] == column]
                end = len(points) + 1
                at = [lefts[column] - 30 + 4 * lane, height]
                points.append({"id": end, "parentId": start, "pos": at, "linkIds": there})
                ends += [{"id": link, "parentId": end} for link in there]
        return {"reroutes": points, "linkExtensions": ends} if points else {}


def node_height(node: Json) -> int:
    """Return the height of a node below its title bar: slots, widgets, and what it shows."""
    shown = sum("widget" in slot for slot in node["inputs"])
    widgets = len(node["widgets_values"])
    slots = max(len(node["inputs"]) - shown, len(node["outputs"]))
    return 14 + 20 * slots + 24 * widgets + EXTRA.get(node["type"], 0)


def note_height(text: str, width: int) -> int:
    """Return the height of a note with this Markdown."""
    letters = int((width - 50) / LETTER)
    paragraphs = [part for part in text.replace("\n- ", "\n\n- ").split("\n\n") if part]
    return 50 + sum(LINE * -(-len(part) // letters) + 8 for part in paragraphs)


def _view(width: int, height: int) -> Json:
    """Return the scale and offset that show a graph of this size whole."""
    fits = min(VIEW[0] / width, VIEW[1] / height)
    scale = round(min(max(fits, SCALES[0]), SCALES[1]), 3)
    return {"ds": {"scale": scale, "offset": [round(side / scale) for side in CORNER]}}

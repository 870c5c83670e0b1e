"""Places of a workflow's nodes: columns as groups, links above the columns that they pass, and the first view.

Everything is in the canvas's units, with the upper left corner at (0, 0): Nodes 2.0 enlarges a graph from there.
"""

from __future__ import annotations

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
    "MicroCinemaCheckpointLoader": 10,  # newer front ends draw it taller
    "LoadVideo": 200,
    "PreviewAny": 100,
    "SaveImage": 290,
    "MicroCinemaCentreFrame": 290,
    "KSampler": 220,
    "MicroCinemaSampler": 250,
    "MicroCinemaTSR": 250,
    "MicroCinemaPromptSchedule": 60,
    "MicroCinemaFrameCombine": 410,
    "SaveVideo": 310,
}
"""Height of what a node shows below its slots and widgets: text, a square picture or video, a live preview."""
AT_THE_END = {
    "KSampler": 0,
    "MicroCinemaCentreFrame": 130,
    "MicroCinemaSampler": 0,
    "MicroCinemaTSR": 0,
    "SaveImage": 130,
    "SaveVideo": 20,
}
"""The same for the last node of a column, which grows when it runs: the room below it stays free, in its group."""
COLOUR = "#3f789e"
VIEW, CORNER = (1250, 690), (75, 145)
"""Pixels of a 1600 x 1000 window that the front end leaves free, and their upper left corner. Nodes 2.0 shows a graph
1.2 times as large, so this is by so much smaller."""
SCALES = (0.58, 0.8)
"""Smallest and largest scale of the first view. Below the smallest, the front end shows no text."""
MOST = 6
"""Columns that the window shows at a scale that can be read, that of a note included."""
TALLEST = 1140
"""Height of a column that the window shows at that scale."""


def across(columns: int) -> int:
    """Return the width of so many columns, with the gaps between them."""
    return columns * PITCH - COLUMN_GAP


LEFT = (-PITCH, 0, across(1))
"""Left, top and width of a note beside the graph."""


class Column:
    """Nodes from top to bottom.

    Attributes:
        group: number of its group.
        nodes: the front end's nodes.
        sizes: their heights before they have run.
        room: height that the last of them needs below itself when it has run.
    """

    def __init__(self, group: int, nodes: list[Json]) -> None:
        self.group, self.nodes = group, nodes
        self.sizes = [node_height(node) for node in nodes]
        last = nodes[-1]["type"]
        self.room = EXTRA[last] - AT_THE_END[last] if last in AT_THE_END else 0
        self.sizes[-1] -= self.room

    @property
    def height(self) -> int:
        """The height before anything has run, with the group's title."""
        return TITLE + PAD + sum(self.sizes) + GAP * len(self.sizes)

    @property
    def grown(self) -> int:
        """The height when everything has run."""
        return self.height + self.room

    def split(self) -> list[Column]:
        """Return this column without its last node, and a column of that node alone."""
        return [Column(self.group, self.nodes[:-1]), Column(self.group, self.nodes[-1:])]

    def place(self, left: int, top: int) -> None:
        """Give the nodes their places and sizes."""
        below = top + TITLE + PAD
        for node, size in zip(self.nodes, self.sizes, strict=True):
            node["pos"], node["size"] = [left + PAD, below + TITLE], [WIDTH, size]
            below += size + GAP


class Layout:
    """Groups of nodes from left to right: a column each, and more where one would be taller than the window."""

    def __init__(self) -> None:
        self._titles: list[str] = []
        self._nodes: list[list[Json]] = []

    def group(self, title: str) -> None:
        """Begin a group."""
        self._titles.append(title)
        self._nodes.append([])

    def add(self, node: Json) -> None:
        """Put a node below the last one of the group; `finish` gives it its size and place."""
        self._nodes[-1].append(node)

    def finish(self, links: list[list[Any]], note: Json | None = None) -> Json:
        """Give the nodes and the note their places and sizes; return groups, reroutes and the first view."""
        columns, (note_left, note_top, note_width) = self._arrange(note["widgets_values"][0] if note else "")
        where = {node["id"]: place for place, column in enumerate(columns) for node in column.nodes}
        lanes = _lanes(links, where)
        top = LANE * (len(lanes) + 1) if lanes else 0
        first = PITCH if note_left < 0 else 0
        lefts = [first + place * PITCH for place in range(len(columns))]
        for column, left in zip(columns, lefts, strict=True):
            column.place(left, top)
        lowest = [top + column.height for column in columns]
        if note:
            text = note["widgets_values"][0]
            note["pos"] = [first + note_left, top + note_top + TITLE]
            note["size"] = [note_width, note_height(text, note_width)]
            lowest.append(note["pos"][1] + note["size"][1])
        view = _view(lefts[-1] + across(1), max(lowest))
        reroutes = _reroutes(lanes, lefts, where)
        return {"groups": self._frames(columns, lefts, top), "extra": {**view, **reroutes}}

    def _arrange(self, text: str) -> tuple[list[Column], tuple[int, int, int]]:
        """Return the columns, and left, top and width of a note with this text.

        The note stands below one or two columns that leave room, or left of all, with `left` below 0. There are as
        many columns as the window shows with it.
        """
        least = len(self._nodes)
        for most in range(max(MOST, least), least - 1, -1):
            columns = self._columns(most)
            if not text:
                return columns, (0, 0, 0)
            if place := _below(text, [column.grown for column in columns]):
                return columns, place
            if len(columns) < MOST:
                return columns, LEFT
        # A preview that grows over the note is better than a graph too wide to read.
        return columns, _below(text, [column.height for column in columns]) or LEFT

    def _columns(self, most: int) -> list[Column]:
        """Return a column for each group, the tallest split until all fit the window or there are `most`."""
        columns = [Column(group, nodes) for group, nodes in enumerate(self._nodes)]
        while len(columns) < most:
            tall = [column for column in columns if column.grown > TALLEST and len(column.nodes) > 1]
            if not tall:
                break
            place = columns.index(max(tall, key=lambda column: column.grown))
            columns[place : place + 1] = columns[place].split()
        return columns

    def _frames(self, columns: list[Column], lefts: list[int], top: int) -> list[Json]:
        """Return the groups, each around its columns."""
        frames = []
        for number, title in enumerate(self._titles):
            own = [place for place, column in enumerate(columns) if column.group == number]
            box = [lefts[own[0]], top, across(len(own)), max(columns[place].grown for place in own)]
            frame = {"id": number + 1, "title": title, "color": COLOUR, "font_size": 24, "flags": {}}
            frames.append({**frame, "bounding": box})
        return frames


def _below(text: str, heights: list[int]) -> tuple[int, int, int] | None:
    """Return left, top and width of a note below one or two columns of these heights that leave it room.

    The last column has none: the front end's map of the graph lies in the lower right corner.
    """
    for span in (1, 2):
        width = across(span)
        for start in range(len(heights) - span):
            top = max(heights[start : start + span]) + PAD
            if top + TITLE + note_height(text, width) <= TALLEST:
                return start * PITCH, top, width
    return None


def _lanes(links: list[list[Any]], where: dict[int, int]) -> dict[tuple[int, int], list[list[Any]]]:
    """Return the links that pass a column, by the output that they come from; `where` has the nodes' columns."""
    lanes: dict[tuple[int, int], list[list[Any]]] = {}
    for link in links:
        if where[link[3]] - where[link[1]] > 1:
            lanes.setdefault((link[1], link[2]), []).append(link)
    return lanes


def _reroutes(lanes: dict[tuple[int, int], list[list[Any]]], lefts: list[int], where: dict[int, int]) -> Json:
    """Return a way above the columns for each link that passes one."""
    points: list[Json] = []
    ends: list[Json] = []
    for lane, ((origin, _), links) in enumerate(lanes.items()):
        height = LANE * lane + LANE // 2
        start = len(points) + 1
        right = lefts[where[origin]] + across(1)
        points.append(
            {"id": start, "pos": [right + 10 + 4 * lane, height], "linkIds": [link[0] for link in links]}
        )
        for column in sorted({where[link[3]] for link in links}):
            there = [link[0] for link in links if where[link[3]] == column]
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

"""Developer tools behind dev.py: running ComfyUI, building releases, and checks. Not part of the node pack."""

from microcinema_core.moved import stop_at_a_moved_command

MOVED = {
    "devtools.archive": "devtools.release.archive",
    "devtools.conformance": "devtools.check.conformance",
    "devtools.curves": "devtools.release.curves",
    "devtools.encoding_cost": "devtools.check.encoding_cost",
    "devtools.example": "devtools.check.example",
    "devtools.full_size": "devtools.check.full_size",
    "devtools.gallery": "devtools.release.gallery",
    "devtools.goldens": "devtools.check.goldens",
    "devtools.help_pictures": "devtools.release.help_pictures",
    "devtools.locales": "devtools.release.locales",
    "devtools.pictures": "devtools.release.pictures",
    "devtools.thumbnails": "devtools.release.thumbnails",
}
"""Commands that moved in 0.2.0. To be removed in 0.3.0."""

stop_at_a_moved_command(MOVED)

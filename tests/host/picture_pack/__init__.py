"""A node pack for tests only: it outputs a file's exact numbers as IMAGE or AUDIO, which no stock node does."""

from __future__ import annotations

from pathlib import Path
from typing import Any


async def comfy_entrypoint() -> Any:
    import folder_paths
    from comfy_api.latest import ComfyExtension, io
    from safetensors.torch import load_file

    class TestPicture(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(
                node_id="TestPicture",
                inputs=[io.String.Input("file")],
                outputs=[io.Image.Output()],
            )

        @classmethod
        def execute(cls, file: str) -> io.NodeOutput:
            return io.NodeOutput(load_file(Path(folder_paths.get_input_directory()) / file)["image"])

    class TestSound(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(
                node_id="TestSound",
                inputs=[io.String.Input("file"), io.Int.Input("sample_rate", default=44100, optional=True)],
                outputs=[io.Audio.Output()],
            )

        @classmethod
        def execute(cls, file: str, sample_rate: int = 44100) -> io.NodeOutput:
            waveform = load_file(Path(folder_paths.get_input_directory()) / file)["image"]
            return io.NodeOutput({"waveform": waveform, "sample_rate": sample_rate})

    class TestExtension(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            return [TestPicture, TestSound]

    return TestExtension()

"""Compare a base or TSR model with a baseline: PSNR and motion on held-out clips, as one JSON object.

Run `python -m microcinema_core.train.compare_to_baseline CONFIG.toml --weights FILE`. The baseline of a base model is
the centre frame, repeated; that of a TSR model interpolates linearly between the latents of the two given frames. Real
clips are the VAE's reconstructions. `--sheet` saves each clip's real frames above its sampled ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from ..config import centre_index
from ..diffusion.noise import GAMMA
from ..files.paths import home_folder
from ..messages import one_line
from ..metrics.psnr import frame_difference, psnr
from ..optional_deps import install_hint
from .batches import open_set
from .config import load
from .sheets import grid, save_picture
from .stages import build_stage
from .video import VideoStage
from .video_inputs import require_fit
from .writing import writing


def decode(stage: VideoStage, latents: Tensor) -> Tensor:
    """Decode latents `b f c h w` to pictures `b f 3 h w` in [-1, 1]."""
    frames = latents.shape[1]
    rows = [stage.vae.decode(clip).clamp(-1, 1) for clip in latents]
    return rearrange(torch.cat(rows), "(b f) c h w -> b f c h w", f=frames)


def baseline(stage: VideoStage, real: Tensor) -> Tensor:
    """Return the baseline of clips `b f c h w`: their appearance latents, as frames of the same shape."""
    appearance = rearrange(stage.appearance(real), "(b f) c h w -> b f c h w", b=real.shape[0])
    return appearance.expand_as(real)


@torch.no_grad()
def compare(
    stage: VideoStage,
    clips: int,
    *,
    steps: int,
    guidance_scale: float,
    seed: int,
    gamma: float = GAMMA,
) -> tuple[dict[str, float], Tensor]:
    """Compare sampled clips and the baseline with the real clips.

    Args:
        stage: the stage; clips are taken at equal distances from its `dataset`.
        clips: number of clips, at most.
        steps: DDIM steps.
        guidance_scale: classifier-free guidance.
        seed: of the first batch of 8 clips; each further batch takes the next seed.
        gamma: strength of the noise prior at the start of sampling.

    Returns:
        The figures by name, and real and sampled pictures `b 2 f 3 h w` in [-1, 1].
    """
    stride = max(1, len(stage.dataset) // clips)
    items = [stage.dataset[i * stride] for i in range(min(clips, len(stage.dataset)))]
    latents = torch.stack([item["mean"] for item in items])
    captions = torch.stack([item[stage.captions][0] for item in items])
    parts = [
        stage.sample(
            z,
            words,
            steps=steps,
            guidance_scale=guidance_scale,
            seed=seed + i,
            gamma=gamma,
            vision=stage.vision_of(items[8 * i : 8 * i + 8]),
        )
        for i, (z, words) in enumerate(zip(latents.split(8), captions.split(8), strict=True))
    ]
    real, made, simple = (decode(stage, z) for z in (latents, torch.cat(parts), baseline(stage, latents)))
    inner = slice(1, -1) if stage.role == "tsr" else slice(None)
    centre = centre_index(real.shape[1])
    figures = {
        "clips": len(items),
        "motion_over_real_median": round(
            float((frame_difference(made) / frame_difference(real)).median()), 3
        ),
        "motion_over_real_baseline": round(
            float((frame_difference(simple) / frame_difference(real)).median()), 3
        ),
        "psnr_to_real_frames": round(float(psnr(made[:, inner], real[:, inner])), 2),
        "psnr_to_real_frames_baseline": round(float(psnr(simple[:, inner], real[:, inner])), 2),
        "psnr_of_centre_frame": round(float(psnr(made[:, centre], real[:, centre])), 2),
    }
    return figures, torch.stack([real, made], dim=1)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is 1 after an error, which stderr states in one sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m microcinema_core.train.compare_to_baseline",
        description=(__doc__ or "").split("\n\n")[0],
    )
    parser.add_argument("config", help="the TOML config that the model was trained with")
    parser.add_argument("--image", help="file with text encoder and VAE (default: the config's image_file)")
    parser.add_argument("--weights", required=True, help="exported file of the config's stage")
    parser.add_argument(
        "--data", help="data set, in $MICROCINEMA_HOME/data (default: the config's test_folder)"
    )
    parser.add_argument("--clips", type=int, default=32, help="clips to compare (default: %(default)s)")
    parser.add_argument(
        "--shown", type=int, default=8, help="clips on the sample sheet (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=20, help="DDIM steps (default: %(default)s)")
    parser.add_argument("--guidance", type=float, default=3.0, help="guidance scale (default: %(default)s)")
    parser.add_argument(
        "--gamma", type=float, default=GAMMA, help="strength of the noise prior (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the first 8 clips (default: %(default)s)"
    )
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write a sample sheet here (.png, .jpg)")
    options = parser.parse_args(arguments)
    if wrong := [name for name in ("clips", "steps", "shown") if getattr(options, name) < 1]:
        parser.error(f"--{wrong[0]} is {getattr(options, wrong[0])}; at least 1 is needed")
    try:
        figures = _compare_files(options)
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{install_hint(error, 'train')}\n")
        return 1
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{one_line(error)}\n")
        return 1
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


def _compare_files(options: argparse.Namespace) -> dict[str, float]:
    """Return the figures of the files that the command line names, and write the sample sheet if it asks for one.

    Raises:
        ValueError: the config or a file is wrong.
        OSError: the sample sheet cannot be written.
    """
    config = load(options.config)
    weights = Path(options.weights).resolve()
    model = (
        {**config.model, "image_file": str(Path(options.image).resolve())} if options.image else config.model
    )
    config = replace(config, init_from=str(weights), precision="fp32", model=model)
    stage = build_stage(config)
    stage.prepare()
    if not isinstance(stage, VideoStage):
        raise ValueError(f"{one_line(options.config)} trains the stage {config.stage}; expected base or tsr")
    stage.dataset = open_set(home_folder() / "data" / options.data) if options.data else stage.test
    require_fit(stage.video, (stage.dataset, stage.test), stage.encode_text, {})
    figures, pictures = compare(
        stage,
        options.clips,
        steps=options.steps,
        guidance_scale=options.guidance,
        seed=options.seed,
        gamma=options.gamma,
    )
    if options.sheet:
        shown = rearrange(pictures[: options.shown], "b two f c h w -> (b two f) c h w")
        with writing(options.sheet, "name another --sheet or free some room"):
            save_picture(options.sheet, grid(shown, columns=pictures.shape[2]))
    return figures


if __name__ == "__main__":
    sys.exit(main())

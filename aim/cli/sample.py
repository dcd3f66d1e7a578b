"""``python -m aim sample``: pictures into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aim.cli.options import Ahead, Backend, Device, Dtype, Model, load, settings, takes_sampling
from aim.cli.progress import progress
from aim.errors import InvalidInput
from aim.files import replace

if TYPE_CHECKING:
    from aim.pipeline import Pipeline

GIF_FRAMES = 32


@takes_sampling("the model's")
def sample(
    classes: Annotated[
        list[str],
        typer.Argument(
            help="ImageNet classes by name or index: goldfish 207 tabby.", show_default=False
        ),
    ],
    count: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 1,
    seed: Annotated[int, typer.Option(help="Image i is drawn with seed + i.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("samples"),
    size: Annotated[
        str | None,
        typer.Option(
            help="Pixels each way that pictures are reduced to, bicubically. Default: as drawn."
        ),
    ] = None,
    gif: Annotated[bool, typer.Option("--gif", help="Also a GIF of each drawing.")] = False,
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Also one sheet of all images, a class a row.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Overwrite files; otherwise a number is added to the name."),
    ] = False,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = None,
    ahead: Ahead = None,
    **sampling: Any,
) -> None:
    """Draw images and write them as PNG, each with all its parameters inside."""
    from PIL import Image

    from aim.images import write
    from aim.models.image_decoder import kept_size

    chosen = settings(model=model, device=device, dtype=dtype, backend=backend, ahead=ahead)
    with progress() as bar:
        pipe = load(chosen)
        kept = kept_size(size, pipe.tokenizer.config)
        reduced = {"size": kept} if kept != pipe.tokenizer.config.output_size else {}
        labels = [pipe.resolve(label) for label in classes for _ in range(count)]
        params = pipe.params(**sampling)
        images: list[Image.Image] = []
        bar.say(f"Drawing {len(labels)} {'image' if len(labels) == 1 else 'images'}")
        drawing = pipe.draw(labels, seed, params, bar.move)  # checks its input first
        files = _Files(out, force)
        for i, codes in enumerate(drawing):
            image = pipe.picture(codes, size)
            stem = write.file_stem(f"{pipe.name} {pipe.title(labels[i])} seed {seed + i}")
            files.write(
                f"{stem}.png",
                write.png_bytes(image, {**pipe.parameters(labels[i], seed + i, params), **reduced}),
            )
            if gif:
                files.write(f"{stem}.gif", _gif(pipe, codes))
            images.append(image)
    if sheet:
        titles = [pipe.title(index) for index in labels[::count]]
        picture = write.contact_sheet(images, count, titles, scale=max(1, 128 // images[0].width))
        shared = {
            "model": pipe.name,
            "version": pipe.version,
            "classes": labels[::count],
            "count": count,
            "seed": seed,
        }
        files.write(
            write.file_stem(f"{pipe.name} sheet seed {seed}") + ".png",
            write.png_bytes(picture, shared),
        )


class _Files:
    """Writes to a folder, never over what is there unless forced, and says what it wrote."""

    def __init__(self, folder: Path, force: bool) -> None:
        self._folder, self._force = folder, force
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                f"cannot write to {folder}: {error.strerror or error}; choose another folder with "
                "--out"
            ) from error

    def write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        number = 2
        while True:
            try:
                replace(path, data, new=not self._force)
            except FileExistsError:
                path = self._folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
                number += 1
            else:
                print(path)
                return


def _gif(pipe: Pipeline, codes: Any) -> bytes:
    from aim.images import write

    total = len(codes)
    steps = range(max(1, total // GIF_FRAMES), total, max(1, total // GIF_FRAMES))
    frames = [*(pipe.preview(codes[:step]) for step in steps), pipe.picture(codes)]
    return write.gif_bytes(
        [frame for frame in frames if frame is not None], at_least=write.GIF_SIZE
    )

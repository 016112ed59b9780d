"""A trained network to use: its logits and predictions for files of the kind it was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rmploss.arguments import checked
from rmploss.data import DataSet, ReadsFiles, ReadsWindows
from rmploss.data.images import conversion, is_image
from rmploss.engine.build import make_dataset
from rmploss.engine.hub import located
from rmploss.engine.load import OnOlder, load_network, warn_of_older
from rmploss.engine.precision import precision
from rmploss.errors import Problem, UserError
from rmploss.lifecycle import settle
from rmploss.models import SpikingNetwork
from rmploss.ops import at_least_single
from rmploss.recipes import Recipe


@dataclass(frozen=True)
class Guess:
    """A class and its probability, the softmax of the logits.

    index: of the class, the label.
    name: of the class; its index where the data set has no names.
    probability: in 0..1.
    """

    index: int
    name: str
    probability: float


class Trained(nn.Module):
    """A trained network in evaluation mode, with what belongs to it.

    net: the network itself, to fine-tune, fold or export.
    recipe: that trained it.
    classes: the names of the classes; their indices where the data set has no names.
    dataset: the kind of data it was trained on; `dataset.shape(recipe.T)` is that of one input.
    source: where it was loaded from.
    """

    def __init__(self, net: SpikingNetwork, recipe: Recipe, dataset: DataSet, source: Path) -> None:
        super().__init__()
        self.net, self.recipe, self.dataset, self.source = net, recipe, dataset, source
        self.classes = tuple(dataset.classes) or tuple(map(str, range(dataset.num_classes)))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, num_classes]` of inputs as the test split prepares them.

        x: `[B, C, H, W]`, or `[T, B, C, H, W]` of events.
        """
        return self.net(x)

    @checked()
    def read(self, files: str | Path | Sequence[str | Path]) -> Tensor:
        """The inputs of files, exactly as the test split prepares its samples.

        files: one or more images, or recordings, of the kind of the run's data. Of a recording of
            which windows are the samples, the first window.

        Returns float32 `[B, C, H, W]`, or `[T, B, C, H, W]` of events. Raises `UserError` that
        names every absent file, and `DataError` for one that cannot be read.
        """
        if not isinstance(self.dataset, ReadsFiles):
            name = self.dataset.name
            fix = "prepare the inputs yourself: net(x)"
            problem = Problem(f"data set {name}", "has no read(path, T) -> Tensor", fix)
            raise UserError("files of this data set cannot be read", [problem])
        samples = [self.dataset.read(path, self.recipe.T) for path in _present(files)]
        return torch.stack(samples, samples[0].ndim - 3)

    @checked()
    def conversion(self, file: str | Path) -> str:
        """What becomes of an image file when it is read, in words; "" if it stays as it is.

        "640x480 pixels, scaled and cropped to 8x8, its colors made gray"; "" for recordings.
        """
        shape = self.dataset.shape(self.recipe.T)
        if self.dataset.temporal or not is_image(Path(file)):
            return ""
        return conversion(Path(file), shape[0], (shape[1], shape[2]))

    @checked()
    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """Logits `[B, num_classes]`, float32 on the CPU: those of `rmploss eval`.

        inputs: `[B, C, H, W]` or `[T, B, C, H, W]`, as from `read`, on any device.
        """
        device = next(self.parameters()).device
        with precision(self.recipe, device)():
            return at_least_single(self(inputs.to(device))).cpu()

    @checked()
    def predict(
        self, inputs: str | Path | Sequence[str | Path] | Tensor, top: int = 5
    ) -> list[tuple[Guess, ...]]:
        """The most probable classes of each input, the best first.

        inputs: one or more files, see `read`; or a tensor, see `logits`. Where the samples are
            windows of long recordings, a file's probabilities are the mean over all its windows.
        top: how many classes of each, at least 1; all of them if there are fewer.
        """
        if type(top) is not int or top < 1:
            raise UserError(f"top = {top!r} must be a whole number, at least 1")
        best = self._probabilities(inputs).topk(min(top, len(self.classes)))
        return [
            tuple(
                Guess(index, self.classes[index], value)
                for value, index in zip(values, indices, strict=True)
            )
            for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def _probabilities(self, inputs: str | Path | Sequence[str | Path] | Tensor) -> Tensor:
        """Of every input, `[B, num_classes]`."""
        if not isinstance(inputs, Tensor) and isinstance(self.dataset, ReadsWindows):
            return torch.stack([self._mean_of_windows(path) for path in _present(inputs)])
        given = inputs if isinstance(inputs, Tensor) else self.read(inputs)
        return self.logits(given).softmax(1)

    def _mean_of_windows(self, path: Path) -> Tensor:
        """Of one recording, `[num_classes]`."""
        assert isinstance(self.dataset, ReadsWindows)
        windows = self.dataset.read_windows(path, self.recipe.T)
        found = []
        while part := list(islice(windows, self.recipe.batch_size)):
            found.append(self.logits(torch.stack(part, 1)).softmax(1))
        return torch.cat(found).mean(0)


def _present(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """The paths of files; `UserError` that names every absent one."""
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
    absent = [Problem(str(path), "no such file") for path in paths if not path.is_file()]
    if absent or not paths:
        raise UserError("no file to read", absent)
    return paths


@checked()
def load(
    source: str | Path,
    *,
    checkpoint: Literal["last", "best"] = "last",
    averaged: bool = False,
    on_older: OnOlder = warn_of_older,
) -> Trained:
    """The trained network of a run or of a pack, in evaluation mode, on the CPU.

        net = rmploss.load("runs/NAME")
        net.predict("image.png")[0][0].name

    source: a run folder; a pack; or a pack on a hub, "hf:owner/name@revision#sha256".
    checkpoint: the last epoch, or the most accurate one.
    averaged: take the averaged weights of a recipe with `average`.
    on_older: see `engine.load.load_network`.

    The network is settled (`lifecycle.settle`): weights that change through `.data` or NumPy alone
    may go unseen, until `net.train()`.

    Nothing is unpickled, and every tensor's hash is compared first. Raises `UserError` for what is
    not a run, `CheckpointError` if its weights do not verify.
    """
    found: dict[str, Any] = {"averaged": averaged, "on_older": on_older}
    net, recipe = load_network(source, checkpoint, **found)
    return Trained(settle(net), recipe, make_dataset(recipe), located(source))

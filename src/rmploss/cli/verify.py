"""`rmploss verify`: check files of run folders against their hashes, compute the digest anew."""

import json as json_module
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from rmploss.cli.common import Flag
from rmploss.cli.wrapping import say
from rmploss.errors import DamagedRunError, Problem, UserError

if TYPE_CHECKING:
    from rmploss.engine.verify import Verification


@dataclass(frozen=True)
class Verify:
    """Check the files of run folders against their hashes, and compute the digest anew.

    $ rmploss verify runs/NAME
    $ rmploss verify runs/*

    Prints a line for each damaged file: what was expected, what was found, what to do.

    Exit code 0: nothing is damaged; 9: something is; 2: a folder is not a run. Files beside runs,
    which `runs/*` names too, are passed over.

    Of a run that is not finished, or of a version without manifests, the output says which files
    have no stored hash.
    """

    run_dirs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN ...", help_behavior_hint="")]
    """The run folders."""
    json: Flag = False
    """One JSON object per run on standard output, for programs."""

    def run(self) -> int:
        """Verify and print."""
        from rmploss.engine.verify import verify

        if not self.run_dirs:
            raise UserError("no run folder was named; for example: rmploss verify runs/NAME")
        problems: list[Problem] = []
        strange: list[Problem] = []
        for path in self._folders():
            try:
                result = verify(path)
            except UserError as error:
                strange += error.problems or (Problem(str(path), error.title),)
                continue
            problems += [damage.problem(path) for damage in result.damages]
            if self.json:
                fields = {**asdict(result), "path": str(path), "sound": not result.damages}
                print(json_module.dumps(fields))
            else:
                for line in _summary(result).splitlines():
                    say(line, 4)
        if strange and not problems:
            raise UserError("not a run", strange)
        if problems:
            count = len(problems)
            title = f"{count} damaged file{'s' if count > 1 else ''}"
            raise DamagedRunError(title, problems + strange)
        return 0

    def _folders(self) -> tuple[Path, ...]:
        """The paths without the files, such as reports, that lie beside the runs."""
        folders = tuple(path for path in self.run_dirs if not path.is_file())
        return folders or self.run_dirs


def _summary(result: "Verification") -> str:
    damaged, sound = len(result.damages), len(result.verified)
    text = f"{result.path}: {result.state}; "
    text += f"{damaged} damaged, {sound} intact" if damaged else f"{sound} files intact"
    if result.unverified:
        text += f"; without a stored hash: {', '.join(result.unverified)}"
    digest = result.digest or "not known: no checkpoint is intact"
    return f"{text}\n  digest {digest}"

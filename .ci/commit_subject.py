"""Refuse a commit message whose subject is longer than 72 characters: `commit_subject.py FILE`."""

import sys
from pathlib import Path

LIMIT = 72

subject = Path(sys.argv[1]).read_text(encoding="utf-8").partition("\n")[0]
if len(subject) > LIMIT:
    sys.exit(
        f"the subject has {len(subject)} characters, {len(subject) - LIMIT} too many:\n{subject}"
    )

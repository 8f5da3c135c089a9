"""The command line. Nothing heavy is imported here: a command's work is imported when the command runs.

Exit codes: 0 done, 1 failed (one sentence on stderr), 2 used wrongly, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dse.commands.parser import build_parser
from dse.errors import shown


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(words[0] if words else None)
    args = parser.parse_all(words)
    if args.command is None:
        parser.print_help()
        return 2
    args.words = words[words.index(args.command) + 1 :]  # the command's own
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("dse: interrupted; what was computed is kept, `dse resume` continues a search", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe has seen enough; that is no failure of ours.
        sys.stderr.close()
        return 0
    except ValueError as error:
        # Every package raises its own subclass of ValueError with one sentence; anything else is a defect and must show.
        if not _is_ours(error):
            raise
        print(f"dse: {shown(str(error))}", file=sys.stderr)
        return int(getattr(error, "exit_code", 1))
    except OSError as error:
        if error.filename is None:
            raise
        print(f"dse: {shown(str(error.filename))} cannot be used: {error.strerror}", file=sys.stderr)
        return 1


def _is_ours(error: ValueError) -> bool:
    return type(error).__module__.partition(".")[0] in ("dse", "dse_kernels", "hw_models", "carbon", "workloads")


if __name__ == "__main__":
    sys.exit(main())

"""Where the `tad` command and ``python -m tad_ext`` begin: nothing is imported before Ctrl-C is met calmly."""

import sys


def main() -> int:
    """Runs the command line of this process and returns its exit code."""
    try:
        import signal

        from tad_ext import cli

        code = cli.main()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said: only the interpreter's own end is left
        return code
    except KeyboardInterrupt:  # before the command line was looked at
        print("\ntad: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())

"""The `mixbench` command: the list of commands in the order of its help, and the one place where errors become words.

Exit codes: 0 done, 1 a check failed, 2 wrong use or input, 3 could not measure, 70 a bug of ours, 130 interrupted.
"""

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..models.errors import MixbenchError, first_line

if TYPE_CHECKING:
    import typer

_BUG, _INTERRUPTED = 70, 130


def create() -> "typer.Typer":
    """The Typer application. Its order is the order of the help, which is a design decision and so kept by hand."""
    import typer

    from .commands import (
        check,
        compare,
        doctor,
        exporting,
        flops,
        history,
        info,
        init,
        models,
        scaling,
        schema,
        sweep,
        timing,
        tracing,
    )
    from .options import Debug, Version

    app = typer.Typer(
        name="mixbench",
        help="What a neural network costs before you deploy it: parameters, MACs, FLOPs, activations, time.",
        epilog="Example: mixbench flops ghostnetv2",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(context: typer.Context, version: Version = False, debug: Debug = False) -> None:
        from .config import load_here  # the help of all commands goes without

        context.obj = loaded = load_here(context.command.commands)  # type: ignore[attr-defined]
        context.default_map = loaded.defaults()

    for panel, name, command in (
        ("Look", "models", models.models),
        ("Look", "info", info.info),
        ("Look", "doctor", doctor.doctor),
        ("Look", "schema", schema.schema),
        ("Count", "flops", flops.flops),
        ("Count", "compare", compare.compare),
        ("Count", "sweep", sweep.sweep),
        ("Measure", "time", timing.time),
        ("Measure", "trace", tracing.trace),
        ("Measure", "scale", scaling.scale),
        ("Ship", "export", exporting.export),
        ("Ship", "check", check.check),
        ("Ship", "history", history.history),
        ("Ship", "init", init.init),
    ):
        # The last paragraph of a command's docstring is its examples, which Typer wants as the epilog.
        text, _, examples = (command.__doc__ or "").rpartition("Examples:")
        lines = [line.strip() for line in examples.splitlines() if line.strip()]
        app.command(name, rich_help_panel=panel, help=text, epilog="\n\n".join(["Examples:", *lines]))(command)
    return app


def script() -> int:
    """`main` in a process of its own, without garbage collection where there is no garbage.

    Start-up makes much and drops nothing (`console.quick_imports` turns the collector on before the real work), and at the
    end the system takes everything back. Together a fifth of the time that ``--help`` takes.
    """
    gc.disable()
    code = main()
    gc.freeze()
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Every error becomes a line on what was wrong and one on what to do."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or bool(os.environ.get("MIXBENCH_DEBUG"))
    words = [word for word in words if word != "--debug"]  # wherever it stands
    try:
        return _run(words)
    except MixbenchError as error:
        _explain(error.what, error.hint, debug)
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the boundary: nothing leaves with a bare traceback
        _explain(f"mixbench itself failed: {first_line(error)}", "this is a bug: please report it with --debug", debug)
        return _BUG


def _run(words: list[str]) -> int:
    import typer

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? and no traceback
    try:
        code = create()(words, prog_name="mixbench", standalone_mode=False)
    except typer.TyperException as error:
        if not words:
            return MixbenchError.exit_code  # the help is on the screen already
        what, _, hint = error.format_message().partition(" Did you mean ")
        what += _origin(error)
        command = next((word for word in words if not word.startswith("-")), "")
        help_line = f"mixbench {command} --help" if command and "No such command" not in what else "mixbench --help"
        raise MixbenchError(what, f"did you mean {hint}" if hint else f"`{help_line}` shows what it takes") from error
    except typer.Abort:
        return _INTERRUPTED
    return code if isinstance(code, int) else 0


def _origin(error: "typer.TyperException") -> str:
    """Where a bad value stands, when it is not on the command line."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    if context is None or parameter is None or context.parent is None:
        return ""
    source = context.get_parameter_source(parameter.name)
    origin = context.find_root().obj.origin(context.info_name, parameter.name)
    return f" (set in {origin})" if origin and source is not None and source.name == "DEFAULT_MAP" else ""


def _explain(what: str, hint: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"error: {what}", file=sys.stderr)  # noqa: T201
    if hint:
        print(f"hint: {hint}", file=sys.stderr)  # noqa: T201

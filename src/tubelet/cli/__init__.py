"""The command line `tubelet`: one thin function per sub-command. Heavy imports wait until a command runs."""

import typer

from tubelet.cli import export, features, look, measure, predict, runs, share, use, videos
from tubelet.config import user_errors

app = typer.Typer(help="Self-supervised pretraining on video.", no_args_is_help=True, pretty_exceptions_enable=False)
bench = typer.Typer(help="Measure what a training step and a clip cost on this machine.", no_args_is_help=True)

app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)(runs.train)
for command in (
    use.reconstruct, predict.predict, share.convert, videos.verify, videos.merge, videos.transcode, runs.report,
    features.features, use.attention, use.masks, look.neighbours, look.colours, look.demo, share.card, share.push,
    share.models, export.export,
):  # fmt: skip
    app.command()(command)
app.add_typer(bench, name="bench")
for measurement in (measure.step, measure.data, measure.windows, measure.loop, measure.memory, measure.scale):
    bench.command()(measurement)


def main() -> None:
    """Run the command. A user's mistake is one line and exit code 2, without a traceback."""
    with user_errors():
        app()

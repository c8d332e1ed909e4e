from pathlib import Path
from typing import Any

import pytest

from tubelet.report.headline import headline, results
from tubelet.report.summary import latex, markdown, summary
from tubelet.report.table import Run, rows, swept_keys


def run(config: dict[str, Any], summary: dict[str, float], finished: bool = True) -> Run:
    return Run("r", Path(), config, {}, summary, finished)


@pytest.fixture
def grid() -> list[Run]:
    """Masking and its kind-specific setting, ratio, seed; each with a probe."""
    return [
        run(
            {
                "masking._target_": f"tubelet.masking.{kind}",
                "masking.share": share,
                "masking.ratio": ratio,
                "seed": seed,
            },
            {"val/loss": 0.1, "knn/top1": ratio + seed / 10, "knn/top5": 1.0, "val/knn_top1": 0.5},
        )
        for kind, share in (("tube", None), ("dual", 0.5))
        for ratio in (0.5, 0.75)
        for seed in (0, 1)
    ]


def test_what_was_swept_and_what_answers(grid: list[Run]) -> None:
    assert swept_keys(grid) == ["masking._target_", "masking.ratio"]  # dual brought masking.share along
    assert results(grid) == ["knn/top1"]
    for one in grid:
        del one.summary["knn/top1"]
    assert results(grid) == ["val/knn_top1"]


def test_what_follows_from_a_swept_name_is_left_out() -> None:
    scenes = {"camera": 8, "motions": 8, "small": 6}
    runs = [run({"data.num_classes": n, "data.scene": scene}, {"val/top1": 0.5}) for scene, n in scenes.items()]
    assert swept_keys(runs) == ["data.scene"]


def test_a_row_has_short_names(grid: list[Run]) -> None:
    assert {"masking": "dual", "masking.ratio": 0.75, "seed": 1}.items() <= rows(grid)[-1].items()


def test_a_chart_with_spread_and_a_map_where_two_keys_were_swept(grid: list[Run]) -> None:
    grid.append(run(grid[0].config | {"masking.ratio": 0.9}, {}, finished=False))
    (chart,), (found,) = headline(grid)
    assert (chart.title, chart.x, chart.names) == ("knn/top1", "masking.ratio", None)
    tube, dual = chart.series
    assert (tube.name, dual.name) == ("tube", "dual")
    assert tube.points == [(0.5, pytest.approx(0.55)), (0.75, pytest.approx(0.8))]
    assert tube.spread == pytest.approx([0.1 / 2**0.5] * 2)
    assert tube.dots == [(0.5, 0.5), (0.5, 0.6), (0.75, 0.75), (0.75, 0.85)]
    assert found.head == ["masking.ratio", "0.5", "0.75"]
    assert found.rows["dual"] == pytest.approx([0.55, 0.8])
    one_key = headline(grid[:4])
    assert len(one_key[0]) == 1
    assert one_key[1] == []


def test_names_stand_below_where_no_number_was_swept(grid: list[Run]) -> None:
    (chart,), _ = headline([one for one in grid if one.config["masking.ratio"] == 0.5])
    assert chart.names == ["dual", "tube"]
    assert not chart.series[0].line


def test_further_keys_make_panels(grid: list[Run]) -> None:
    flow = [run(one.config | {"target._target_": "Flow"}, one.summary) for one in grid[4:]]
    pixels = [run(one.config | {"target._target_": "Pixels"}, one.summary) for one in grid]
    charts, maps = headline(flow + pixels)
    assert [chart.title for chart in charts] == ["knn/top1: Flow", "knn/top1: Pixels"]
    assert [series.name for series in charts[1].series] == ["tube", "dual"]
    assert charts[0].series[0].colour == charts[1].series[1].colour  # dual, in both
    assert [each.title for each in maps] == ["knn/top1: Flow, mean", "knn/top1: Pixels, mean"]
    many = [run(one.config | {"lr": i / 7, "a": i % 5, "b": i % 3}, one.summary) for i, one in enumerate(9 * grid)]
    assert headline(many) == ([], [])  # no sweep


def test_a_table_over_the_seeds(grid: list[Run]) -> None:
    grid[-1].summary.pop("knn/top1")  # its probe has not ended
    table = summary(grid)
    assert table[0] == ["masking", "masking.ratio", "runs", "knn/top1"]
    assert table[1] == ["tube", "0.5", "2", "0.550 ± 0.071"]
    assert table[-1] == ["dual", "0.75", "2", "0.750"]
    assert markdown(table).splitlines()[:2] == ["| masking | masking.ratio | runs | knn/top1 |", "|---|---|---|---|"]
    assert r"tube & 0.5 & 2 & 0.550 $\pm$ 0.071 \\" in latex(table)
    assert summary(grid[:2]) == []


def test_nothing_to_answer(grid: list[Run]) -> None:
    assert headline(grid[:2]) == ([], [])  # two seeds
    assert headline([run(one.config, {"val/loss": 0.1}, finished=False) for one in grid]) == ([], [])


def test_a_result_that_is_no_number_is_in_the_table_and_not_in_the_chart(grid: list[Run]) -> None:
    for one in grid[:3]:
        one.summary["knn/top1"] = float("nan")
    (chart,), (found,) = headline(grid)
    assert [series.dots for series in chart.series] == [
        [(0.75, 0.85)],
        [(0.5, 0.5), (0.5, 0.6), (0.75, 0.75), (0.75, 0.85)],
    ]
    assert found.rows["tube"] == [None, 0.85]
    assert summary(grid)[1] == ["tube", "0.5", "2", "nan ± nan"]
    for one in grid:
        one.summary["knn/top1"] = float("inf")
    assert headline(grid) == ([], [])


def test_values_that_mean_something_to_markdown_or_latex() -> None:
    table = [["optim.betas", "runs"], ["[0.9, 0.95]", "1"], [r"a|b\c_{d}$^~", "1"]]
    assert markdown(table).splitlines()[-1] == r"| a\|b\c_{d}$^~ | 1 |"
    assert latex(table).splitlines()[4:6] == [
        r"{[}0.9, 0.95] & 1 \\",
        r"a|b\textbackslash{}c\_\{d\}\$\textasciicircum{}\textasciitilde{} & 1 \\",
    ]

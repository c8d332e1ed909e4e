import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tubelet.report.headline import draw_headline, results, swept_keys
from tubelet.report.summary import latex, markdown, summary
from tubelet.report.table import Run, rows


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


def test_a_row_has_short_names(grid: list[Run]) -> None:
    assert {"masking": "dual", "masking.ratio": 0.75, "seed": 1}.items() <= rows(grid)[-1].items()


def test_a_map_where_two_keys_were_swept(grid: list[Run]) -> None:
    def height(runs: list[Run]) -> int:
        return Image.open(io.BytesIO(draw_headline(runs) or b"")).size[1]

    grid.append(run(grid[0].config | {"masking.ratio": 0.9}, {}, finished=False))
    assert height(grid) == 850
    assert height(grid[:4]) == 450


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
    assert draw_headline(grid[:2]) is None  # two seeds
    assert draw_headline([run(one.config, {"val/loss": 0.1}, finished=False) for one in grid]) is None

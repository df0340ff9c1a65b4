"""lanaprof score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Meter, Outcome, command, database_option, meter, notice, ray_option, team_option

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.distill import ScoreRecipe
    from lanaprof.distill.combining import RankCorrelation
    from lanaprof.flows.judging import Trust
    from lanaprof.flows.project import Project
    from lanaprof.flows.scoring import ScoreReport
    from lanaprof.flows.spanning import RunFactor
    from lanaprof.lut import Store

_WEAK = 2.0  # a score closer to zero than so many standard errors says little


@command("score")
@click.option("--metric", default="kl", show_default=True, metavar="kl|loss|accuracy|pkg.module:function")
@click.option("--images", default=1024, show_default=True, type=click.IntRange(1), help="Held-out images.")
@click.option(
    "--batch-norm",
    default="reestimate",
    show_default=True,
    type=click.Choice(["reestimate", "keep"]),
    help="Behind the candidate.",
)
@click.option(
    "--host",
    default="teacher",
    show_default=True,
    type=click.Choice(["teacher", "average"]),
    help="What a candidate stands in.",
)
@click.option("--power", type=float, metavar="P", help="Raise sizes to it [default: 0.5 by kl, else 1].")
@click.option("--report", is_flag=True, help="List every candidate, and how far sums can be trusted.")
@click.option(
    "--networks", type=click.IntRange(8), metavar="N", help="Fine-tune N random ones shortly to see that."
)
@click.option("--fit", type=click.IntRange(8), metavar="N", help="Likewise, and correct the scores by them.")
@click.option(
    "--spans",
    type=click.IntRange(1),
    metavar="N",
    help="Put candidates for several layers on the scale of sums, by N networks of each run of layers.",
)
@click.option(
    "--tune-steps", default=80, show_default=True, type=click.IntRange(1), help="Of each fine-tune."
)
@click.option("--tune-batch-size", default=128, show_default=True, type=click.IntRange(2), metavar="N")
@click.option(
    "--tune-precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "fp32", "bf16"]),
    help="Of them; auto: bf16 on a GPU that has it.",
)
@click.option(
    "--seeds", default=2, show_default=True, type=click.IntRange(1), help="Fine-tunes of each network."
)
@click.option(
    "--plot", metavar="FILE", type=click.Path(path_type=Path), help="Sums and truth: .html, .svg, .png."
)
@ray_option
@database_option
@team_option
def score(report: bool, plot: Path | None, database: str | None, team: str | None, **options: Any) -> Outcome:
    """Score the trained candidates on held-out data, each alone in the teacher's network."""
    from lanaprof.errors import BadInput, UserError
    from lanaprof.flows.judging import JudgeRules, find_trust, judge_scores, read_judged
    from lanaprof.flows.prechecks import check_has_data, check_metric, check_out
    from lanaprof.flows.project import default_team, load_project
    from lanaprof.flows.scoring import check_scorable
    from lanaprof.lut import open_store

    if options["spans"] and options["fit"]:
        raise BadInput("--fit and --spans both correct the scores", hint="leave one of the two out")
    check_metric(options["metric"])
    check_out(plot, option="--plot")
    project = load_project()
    check_has_data(project)
    check_scorable(project)
    from lanaprof.distill import ScoreRecipe  # imports torch: after what can be refused without

    recipe = ScoreRecipe(
        **{name: options[name] for name in ("metric", "images", "batch_norm", "host", "power")}
    )
    who = default_team(team, project.config)
    networks = max(options["networks"] or 0, options["fit"] or 0)
    trust: Trust | None = None
    wanted = networks > 0 or report or plot is not None
    judged_before = read_judged(project)[0] if wanted and not networks else ()
    if plot is not None and not networks and not judged_before:
        raise UserError("no networks were judged yet: nothing to draw", hint="lanaprof score --networks 40")
    with open_store(project.database(database), create=True) as store, meter("scoring") as bar:
        result, where = _scored(project, store, recipe, who, options["ray"], renew=not wanted, bar=bar)
        if networks:
            rules = JudgeRules(
                networks,
                tune_steps=options["tune_steps"],
                seeds=options["seeds"],
                batch_size=options["tune_batch_size"],
                precision=options["tune_precision"],
            )
            fit = options["fit"] is not None
            trust = judge_scores(project, store, recipe.text, rules, fit=fit, team=who, progress=bar.follow)
        elif wanted:
            trust = find_trust(project, store, recipe.text)
        factors = _factors(project, store, recipe.text, who, options, bar) if options["spans"] else ()
    _warn(result)
    if plot is not None and trust is not None:
        _draw(trust, plot)
    document = {**where, **_scores_document(result), **(_trust_document(project, trust) if trust else {})}
    if factors:
        document["spans"] = {one.run: {"factor": one.factor, "networks": one.networks} for one in factors}

    def show(console: Console) -> None:
        _show_scores(console, project, result, everything=report)
        if trust is not None:
            _show_trust(console, trust)
        _show_factors(console, factors)

    return Outcome(document, show)


def _factors(
    project: Project, store: Store, metric: str, team: str, options: dict[str, Any], bar: Meter
) -> tuple[RunFactor, ...]:
    from lanaprof.flows.finalist_judge import open_judge
    from lanaprof.flows.spanning import fit_spans

    judge = open_judge(project, steps=1, batch_size=options["tune_batch_size"], tell=notice)
    return fit_spans(
        project,
        store,
        metric,
        networks=options["spans"],
        judge=judge.assembled,
        team=team,
        progress=bar.follow,
    )


def _scored(
    project: Project,
    store: Store,
    recipe: ScoreRecipe,
    team: str,
    ray: str | None,
    *,
    renew: bool,
    bar: Meter,
) -> tuple[ScoreReport, dict[str, Any]]:
    if not ray:
        from lanaprof.flows.scoring import score_project

        return score_project(project, store, recipe=recipe, team=team, renew=renew, progress=bar.follow), {}
    from lanaprof.flows.spreading import opened_cluster, score_over

    with opened_cluster(project, ray, tell=notice) as cluster:
        result, spread = score_over(cluster, project, store, recipe=recipe, team=team, progress=bar.follow)
    return result, {"cluster": spread.summary}


def _warn(result: ScoreReport) -> None:
    measured = result.measured
    weak = sum(
        1 for s in measured if s.standard_error is not None and abs(s.score) < _WEAK * s.standard_error
    )
    if weak > len(measured) / 4:
        notice(f"{weak} of {len(measured)} scores are within {_WEAK:g} standard errors of 0: more --images")


def _draw(trust: Trust, path: Path) -> None:
    from lanaprof.flows.plotting import Words, write_drawing
    from lanaprof.flows.scatter import trust_chart

    caption = "Each dot is a network: the sum of its scores, and how far from the teacher a short fine-tune left it."
    write_drawing(path, trust_chart(trust), Words("What scores promised", caption, example="scores.html"))


def _images(result: ScoreReport) -> int:
    return result.measured[0].images if result.measured else 0


def _scores_document(result: ScoreReport) -> dict[str, Any]:
    return {
        "metric": result.metric,
        "images": _images(result),
        "stored": result.stored,
        "scores": [
            {"layer": s.layer, "operation": s.operation, "score": s.score, "standard_error": s.standard_error}
            for s in result.scores
        ],
    }


def _trust_document(project: Project, trust: Trust) -> dict[str, Any]:
    found = trust.correlations
    document: dict[str, Any] = {
        "correlation": {
            "networks": found.networks,
            "tune_steps": trust.tune_steps,
            "score": _correlation(found.score),
            "own_kl": _correlation(found.own),
            "ceiling": _correlation(found.ceiling),
            "of_ceiling": found.of_ceiling,
            "points": [
                {
                    "choices": dict(project.space.named(one.choices)),
                    "score": total,
                    "own_kl": one.own_kl,
                    "tuned_kl": list(one.tuned_kl),
                }
                for one, total in zip(trust.judged, trust.sums, strict=True)
            ],
        }
    }
    if trust.combination is not None:
        document["fit"] = {
            "metric": trust.fitted_metric,
            "power": trust.combination.power,
            "weights": dict(trust.combination.weights),
            "networks": trust.combination.networks,
            "left_out": _correlation(trust.fitted),
        }
    return document


def _correlation(found: RankCorrelation | None) -> dict[str, float] | None:
    return None if found is None else {"tau": found.tau, "low": found.low, "high": found.high}


def _show_scores(console: Console, project: Project, result: ScoreReport, *, everything: bool) -> None:
    from lanaprof.cli.tables import plain_table

    table = plain_table("layer", "operation", "#score", "#± standard error")
    for layer in project.space.places:
        rows = sorted((s for s in result.measured if s.layer == layer.name), key=lambda s: -s.score)
        for s in rows if everything else rows[:1]:
            error = f"{s.standard_error:.4f}" if s.standard_error is not None else "–"
            table.add_row(s.layer, s.operation, f"{s.score:.4f}", error)
    console.print(table)
    console.print(
        f"{len(result.measured)} candidates scored by {result.metric} on {_images(result)} held-out images"
        + ("" if everything else "; shown: the best of each layer (--report lists all)")
    )


def _show_trust(console: Console, trust: Trust) -> None:
    from lanaprof.cli.tables import plain_table

    found = trust.correlations
    table = plain_table("ranking by", "#Kendall τ", "#90 % interval")
    rows = [("sum of scores", found.score)]
    if trust.fitted is not None:
        rows.append(("sum of corrected scores, by fits on the other networks", trust.fitted))
    rows.append(("the network's own KL, batch norm re-estimated", found.own))
    if found.ceiling is not None:
        rows.append(("another fine-tune: no prediction can do better", found.ceiling))
    for name, one in rows:
        table.add_row(name, f"{one.tau:.2f}", f"{one.low:.2f} to {one.high:.2f}")
    console.print(table)
    console.print(
        f"against the KL of {found.networks} networks after {trust.tune_steps} steps of fine-tuning"
    )
    if trust.combination is not None:
        console.print(f"corrected scores are stored as {trust.fitted_metric}: select uses the newest")


def _show_factors(console: Console, factors: Sequence[RunFactor]) -> None:
    from lanaprof.cli.tables import plain_table
    from lanaprof.flows.spanning import SPANNED

    if not factors:
        return
    table = plain_table("run of layers", "#its candidates' scores times", "#by networks")
    for one in factors:
        table.add_row(one.run, f"{one.factor:.2f}", str(one.networks))
    console.print(table)
    console.print(
        f"stored as kl{SPANNED}, with the scores of single layers as they are: select uses the newest"
    )

"""lanaprof select."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import (
    Outcome,
    command,
    database_option,
    device_option,
    environment_option,
    meter,
    notice,
    policy_option,
    split_named,
    team_option,
)
from lanaprof.cli.finalists import bench_of, finalist_options, find_judge, hold, keep, show_finalists

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.flows.choosing import Chosen, Question
    from lanaprof.flows.finalists import Finalist
    from lanaprof.flows.proving import Proof
    from lanaprof.lut import Selection, Store
    from lanaprof.solver import Explanation


@command("select")
@click.option(
    "--budget", "budgets", multiple=True, metavar="[DEVICE=]5ms|50%|2x", help="Latency; repeatable."
)
@device_option
@click.option("--max-params", metavar="5M", help="Parameters.")
@click.option("--max-weights", metavar="20MB", help="Bytes of weights.")
@click.option("--max-peak", metavar="8MB", help="Bytes of activations alive at once.")
@click.option("--max-macs", metavar="300M", help="Multiply-accumulates.")
@click.option(
    "--top", default=1, show_default=True, type=click.IntRange(1), help="So many diverse architectures."
)
@click.option(
    "--overlap", default=0.7, show_default=True, help="Share of layers two of them may have in common."
)
@click.option(
    "--confidence", type=float, metavar="0.95", help="That the latency is inside [default: 0.95 unproved]."
)
@finalist_options
@click.option(
    "--explain", is_flag=True, help="What other candidates would change, and what the budget is worth."
)
@click.option("--no-verify", is_flag=True, help="Choose from the table alone.")
@click.option(
    "--dump-problem", metavar="FILE", type=click.Path(path_type=Path), help="Write the problem for solve."
)
@click.option(
    "--scores", metavar="FILE", type=click.Path(path_type=Path), help="CSV or JSON: layer, operation, score."
)
@click.option("--metric", metavar="NAME", help="Which scores [default: the newest].")
@click.option("--method", default="exact", show_default=True, metavar="NAME", help="The selector.")
@click.option("--time-limit", default="60s", show_default=True, metavar="60s", help="Of one solve.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write the architecture.")
@database_option
@team_option
@environment_option
@policy_option
def select(device: str | None, database: str | None, team: str | None, **options: Any) -> Outcome:
    """Choose the best architecture within a budget and, when the device is here, prove it by timing."""
    from lanaprof.flows.choosing import ask, choose, choose_diverse
    from lanaprof.flows.prechecks import check_out
    from lanaprof.flows.project import default_team, load_project
    from lanaprof.lut import open_store
    from lanaprof.solver import get_selector
    from lanaprof.units import format_duration, parse_duration

    texts = split_named(options["budgets"], "budget")
    sizes = _sizes(options)
    time_limit_s = parse_duration(options["time_limit"], what="--time-limit")
    check_out(options["out"])
    check_out(options["dump_problem"], option="--dump-problem")
    get_selector(options["method"])
    project = load_project().under(options["policy"])
    with open_store(project.database(database)) as store:
        who = default_team(team, project.config)
        proving = not options["no_verify"] and options["top"] == 1
        settings = {**options, "proving": False}
        question = ask(project, store, device=device, budgets=texts, sizes=sizes, team=who, settings=settings)
        here = proving and _is_here(question)
        if here:
            settings["proving"] = True
            question = ask(
                project, store, device=device, budgets=texts, sizes=sizes, team=who, settings=settings
            )
        for predictor in question.predictors.values():
            for warning in predictor.warnings:
                notice(warning)
        teacher_s = question.predictor.teacher_s
        if teacher_s is not None and not sizes and teacher_s <= question.budget_s < float("inf"):
            notice(f"the teacher takes {format_duration(teacher_s)}: within the budget as it is")
        if options["dump_problem"]:
            _dump(question, options["dump_problem"])
        if options["top"] > 1:
            notice(
                "--top chooses from the table; none of these is proved (lanaprof verify --architecture FILE times one)"
            )
            chosen = choose_diverse(
                question, top=options["top"], overlap=options["overlap"], time_limit_s=time_limit_s
            )
        else:
            chosen = choose(question, time_limit_s=time_limit_s)
        judge = find_judge(question, options, here=here)
        proof = _prove(question, store, who) if here else None
        if proof is not None:  # a relative budget is what the teacher timed beside the answer says
            question = replace(
                question, budgets={**question.budgets, question.predictor.cost_name: proof.budget_s}
            )
        finalists = (
            hold(question, chosen, proof, judge=judge, store=store, team=who, options=options)
            if judge is not None
            else ()
        )
        selection = _store(question, store, chosen, proof, finalists, who)
        rows = keep(question, selection, finalists) if judge is not None else None
        if judge is None and any(".." in place for place, _ in selection.choices):
            notice(
                "sums of scores are kind to candidates for several layers: compare networks with --finalists 8"
            )
        if options["out"]:
            _write_architecture(question, selection, options["out"])
        explanation = _explain(question, selection, proof) if options["explain"] else None
    return _outcome(question, chosen, proof, selection, rows, explanation)


def _sizes(options: dict[str, Any]) -> dict[str, float]:
    from lanaprof.units import parse_count, parse_size

    parsers = {
        "params": ("max_params", parse_count),
        "weight_bytes": ("max_weights", parse_size),
        "peak_bytes": ("max_peak", parse_size),
        "macs": ("max_macs", parse_count),
    }
    return {
        cost: float(parse(options[name], what="--" + name.replace("_", "-")))
        for cost, (name, parse) in parsers.items()
        if options[name]
    }


def _is_here(question: Question) -> bool:
    """Say whether this machine is the environment the table describes; tell the user when it is not."""
    from lanaprof.errors import BackendUnavailable, DeviceUnavailable
    from lanaprof.profiler.environment import local_environment

    if question.predictor.cost_name not in question.budgets:
        return False
    try:
        own = local_environment(question.device)
    except (DeviceUnavailable, BackendUnavailable) as error:
        notice(f"not proved: {error.message}")
        return False
    if own.id != question.predictor.table.environment.id:
        notice("not proved: the table was measured in another environment than this machine's")
        return False
    return True


def _dump(question: Question, path: Path) -> None:
    from lanaprof.flows.files import write_for_user
    from lanaprof.solver import problem_to_json

    text = json.dumps(problem_to_json(question.problem())) + "\n"
    write_for_user(path, text, hint="choose another --dump-problem")


def _prove(question: Question, store: Store, team: str) -> Proof:
    from lanaprof.flows.proving import prove

    with meter("proving") as bar:
        return prove(
            question.project,
            bench_of(question, store, team, bar),
            question.predictor,
            problem_of=question.problem,
            budgets=question.budgets,
            fraction=question.fraction,
            tell=notice,
        )


def _store(
    question: Question,
    store: Store,
    chosen: Chosen,
    proof: Proof | None,
    finalists: Sequence[Finalist],
    team: str,
) -> Selection:
    """Store the best finalist, else what the loop proved, else what the tables say."""
    from lanaprof.flows.choosing import store_selection
    from lanaprof.flows.finalists import winner_of

    solution, winner = chosen.solution, winner_of(finalists)
    if winner is not None:
        choices, score, predicted_s = winner.choices, winner.score, winner.predicted_s
        record = winner.measurement
    elif proof is not None:
        choices, score, predicted_s = proof.choices, proof.score, proof.predicted_s
        record = proof.measurement
    else:
        choices, score, predicted_s = chosen.choices, solution.score, chosen.prediction.latency_s
        record = None
    return store_selection(
        question,
        store,
        choices,
        score=score,
        bound=max(solution.bound, score),
        proved=solution.proved and choices == chosen.choices,
        status=proof.status if proof is not None else "unverified",
        predicted_s=predicted_s,
        measured_s=record.latency_s if record is not None else None,
        ci_low_s=record.ci_low_s if record is not None else None,
        ci_high_s=record.ci_high_s if record is not None else None,
        rounds=proof.rounds if proof is not None else 0,
        team=team,
    )


def _write_architecture(question: Question, selection: Selection, path: Path) -> None:
    from lanaprof.flows.files import write_for_user
    from lanaprof.space import Architecture, architecture_to_json

    document = architecture_to_json(Architecture(question.project.space.teacher, selection.choices))
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    write_for_user(path, text, hint=f"selection {selection.id[:12]} is stored all the same")


def _explain(question: Question, selection: Selection, proof: Proof | None) -> Explanation:
    from lanaprof.flows.explaining import explain_selection
    from lanaprof.space import Architecture

    choices = Architecture("", selection.choices).complete(question.project.space)
    return explain_selection(question, choices, proof)


def _outcome(
    question: Question,
    chosen: Chosen,
    proof: Proof | None,
    selection: Selection,
    finalists: Sequence[dict[str, Any]] | None,
    explanation: Explanation | None,
) -> Outcome:
    budget_s = question.budget_s if question.budget_s != float("inf") else None
    document: dict[str, Any] = {
        "id": selection.id,
        "status": selection.status,
        "score": selection.score,
        "bound": selection.bound,
        "proved": selection.proved,
        "choices": dict(selection.choices),
        "predicted_s": selection.predicted_s,
        "measured_s": selection.measured_s,
        "ci_low_s": selection.ci_low_s,
        "ci_high_s": selection.ci_high_s,
        "budget_s": budget_s,
        "budgets": dict(question.budgets),
        "rounds": selection.rounds,
        "common_factor": proof.common_factor if proof else None,
        "too_noisy": proof.too_noisy if proof else None,
        "refused": [one.to_json() for one in proof.refused] if proof else [],
        "margin_s": chosen.margin_s,
        "confidence": question.confidence,
        "device": question.device.text,
        "teacher_s": proof.teacher.latency_s if proof and proof.teacher else question.predictor.teacher_s,
    }
    if chosen.alternatives:
        document["solutions"] = [
            {
                "score": s.score,
                "bound": s.bound,
                "proved": s.proved,
                "choices": dict(s.choices),
                "costs": dict(s.costs),
            }
            for s in chosen.alternatives
        ]
    if finalists is not None:
        document["finalists"] = list(finalists)
    if explanation is not None:
        document["explanation"] = explanation.to_json()

    def show(console: Console) -> None:
        from lanaprof.cli.explaining import show_explanation
        from lanaprof.units import format_duration

        _show(console, document)
        if explanation is not None:
            show_explanation(console, explanation)
            if document["margin_s"] and document["status"] == "unverified":
                kept = format_duration(document["margin_s"])
                console.print(f"{kept} of the budget are kept free, for the confidence asked")

    return Outcome(document, show, 3 if selection.status == "over_budget" else 0)


def _show(console: Console, document: dict[str, Any]) -> None:
    from lanaprof.cli.tables import plain_table
    from lanaprof.units import format_duration

    table = plain_table("layer", "operation")
    for layer, operation in document["choices"].items():
        table.add_row(layer, operation if operation != "teacher" else "[dim]teacher[/dim]")
    console.print(table)
    parts = [f"score {document['score']:.4f}"]
    if document["predicted_s"] is not None:
        parts.append(f"predicted {format_duration(document['predicted_s'])}")
    if document["measured_s"] is not None:
        half = (document["ci_high_s"] - document["ci_low_s"]) / 2 / document["measured_s"]
        said = [f"±{half:.1%}"]
        if document["teacher_s"]:
            said.append(f"{document['teacher_s'] / document['measured_s']:.2f}× the teacher")
        parts.append(f"measured {format_duration(document['measured_s'])} ({', '.join(said)})")
    if document["budget_s"] is not None:
        parts.append(f"budget {format_duration(document['budget_s'])}")
    console.print(f"{document['status']}: {', '.join(parts)} on {document['device']}")
    if document.get("finalists"):
        show_finalists(console, document["finalists"])
    if document.get("solutions"):
        console.print(f"{len(document['solutions'])} diverse architectures; --json lists them")
    console.print(f"selection {document['id'][:12]}")

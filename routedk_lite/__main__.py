"""The `routedk` command: a thin layer over `pipeline`, `records` and `doctor`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .errors import exit_code
from .places import check_writable

app = typer.Typer(
    name="routedk",
    help="Teach a small LLM to find product bundles: replicate RouteDK (arXiv 2508.17250).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="The public data: fetch, verify, describe.", no_args_is_help=True)
app.add_typer(data_app, name="data")

TEACHERS = {
    "recorded": ("model", "base_url", "key_variable", "price_in", "price_out", "concurrency", "extra"),
    "openai": (),
    "local": ("base_url", "key_variable", "price_in", "price_out", "concurrency", "extra"),
}
"""Teacher → options of `distill` that say nothing about it."""


@app.callback()
def everywhere(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from. Works in any place.")] = False,
) -> None:
    """What all commands understand; `errors.exit_code` looks for it."""


@app.command()
def run(
    profile: options.ProfileName = "toy",
    domain: options.DomainName = None,
    seed: options.Seed = 0,
    results: options.Results = Path("results"),
    work: options.Work = Path("runs"),
    only: Annotated[
        list[str] | None, typer.Option(help="Only this stage, or a pattern: 'fusion-*'. Repeat it.")
    ] = None,
    part: Annotated[
        str,
        typer.Option(
            help="method (RouteDK and baselines), companion (places, formats and quantities of knowledge), ablations "
            "(of router and experts) or fusions (of other papers)."
        ),
    ] = "method",
    dry_run: Annotated[bool, typer.Option(help="Print the plan with estimates, run nothing.")] = False,
) -> None:
    """Run the stages of one study that are not done yet. Stop it with Ctrl-C and start it again as you like."""
    from .report.tables import plan_table, results_table
    from .study.pipeline import Pipeline, Stage

    def say(stage: Stage, done: bool) -> None:
        typer.echo(f"{'done   ' if done else 'running'}  {stage.name}: {stage.about}")
        if not done and stage.kind != "fetch":
            check_writable(results, "--results")
            check_writable(work, "--work")

    study = Pipeline(profile, domain, seed, results=results, work=work)
    if dry_run:
        typer.echo(plan_table(study, part, only or ()))
        if study.note:
            typer.echo(study.note)
        return
    if study.note:
        typer.echo(study.note)
    typer.echo(results_table(study.run(say, only=only or (), part=part)))


@app.command()
def export(
    folder: options.Exported,
    profile: options.ProfileName = "toy",
    domain: options.DomainName = None,
    seed: options.Seed = 0,
    fusion: Annotated[str, typer.Option(help="average, ties, static, dynamic or dynamic-k2.")] = "dynamic",
    work: options.Work = Path("runs"),
    merged: Annotated[
        bool, typer.Option(help="Write an ordinary model with the experts in its weights; not for dynamic fusions.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Replace a folder that holds something else, after showing it.")] = False,
) -> None:
    """Write experts and fusion of a study as safetensors with hashes; what is not trained yet is trained first."""
    from .files import check_ours, foreign_files
    from .fusion.shipping import exported_files
    from .study.pipeline import Pipeline

    study = Pipeline(profile, domain, seed, work=work)
    check_writable(folder, "folder")
    ours = exported_files(folder, merged=merged)
    check_ours(folder, ours, force=force)
    if doomed := foreign_files(folder, ours):
        typer.echo(f"{folder} holds what is not ours and would be deleted:")
        typer.echo("".join(f"  {name}\n" for name in doomed), nl=False)
        typer.confirm("Delete it?", abort=True)
    written = study.export(folder, fusion, merged=merged, force=force)
    for path in sorted(path for path in written.rglob("*") if path.is_file()):
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@app.command()
def bundle(
    sessions: options.SessionsFile,
    experts: options.Experts,
    profile: options.ProfileName = "toy",
    out: options.Table = None,
    domain: options.TrainedOn = None,
    n: options.Samples = None,
    longest: options.Longest = None,
    seed: options.SampleSeed = 0,
    work: options.Work = Path("runs"),
    force: Annotated[bool, typer.Option(help="Replace a table that is there.")] = False,
) -> None:
    """Find bundles in new sessions with trained experts, and write them as a table.

    SESSIONS is a table (.csv, .tsv, .jsonl) with the columns session, item and
    title, one row for each item; or a folder that holds sessions.csv. Bundles
    that it may name are not looked at.

    The result has the same rows, with a column bundle (1, 2, … within each
    session; empty for an item in none, 1|2 for one in two) and a column note,
    where something is to be said: a session of one item, one longer than those
    of training, an answer that was cut off. A session that the student cannot
    be asked about has no bundles and a note that says why; it is named at the
    end, and the exit code is 1.

    Stop it with Ctrl-C and start it again: no answer is lost.

    Example: routedk bundle new.csv --experts runs/toy/toyshop/base-seed0
    """
    from .data.own import load_sessions
    from .data.writing import check_ending, write_sessions
    from .study.bundling import bundle_sessions

    table = out or sessions.resolve().with_name(f"{sessions.resolve().stem}.bundles.csv")
    check_ending(table)
    if table.exists() and (not force or table.is_dir() or (sessions.exists() and table.samefile(sessions))):
        raise ValueError(f"--out = {table} is there already: give another name" + ", or --force" * table.is_file())
    asked = load_sessions(sessions, answers=False)
    check_writable(table.parent, "--out")
    check_writable(work, "--work")
    options_of = {"profile": profile, "domain": domain, "n": n, "longest": longest, "seed": seed, "work": work}
    found = bundle_sessions(asked, experts, **options_of)
    write_sessions(
        table, asked, {one.session.id: one.bundles for one in found}, {one.session.id: one.note for one in found}
    )
    refused = [one for one in found if one.refused]
    bundles, flagged = sum(len(one.bundles) for one in found), sum(bool(one.note) for one in found) - len(refused)
    typer.echo(f"{table}: {bundles} bundles in {len(found) - len(refused)} sessions, {flagged} of them with a note")
    for one in refused:
        typer.secho(f"error: session {one.session.called}: {one.note}", err=True, fg="red")
    if refused:
        raise typer.Exit(1)


@app.command()
def distill(
    context: typer.Context,
    domain: Annotated[
        str, typer.Option(help="electronic, clothing, food or toyshop; or a folder of your own sessions: ./mine.")
    ],
    kind: Annotated[str, typer.Option(help="rules, reasoning (after rules), answers; or patterns, which are mined.")],
    teacher: Annotated[str, typer.Option(help="recorded, openai (any compatible endpoint) or local.")] = "recorded",
    model: Annotated[
        str, typer.Option(help="Model at the endpoint; or profile, hub id or folder of a local one.")
    ] = "",
    base_url: Annotated[str, typer.Option(help="The endpoint, with its version.")] = "https://api.openai.com/v1",
    key_variable: Annotated[str, typer.Option(help="Environment variable that holds the key.")] = "OPENAI_API_KEY",
    limit: options.Limit = None,
    out: options.Out = None,
    price_in: options.PriceIn = None,
    price_out: options.PriceOut = None,
    concurrency: options.Concurrency = 4,
    extra: options.Extra = "{}",
    yes: Annotated[bool, typer.Option(help="Do not ask before paid calls are made.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Print the estimate, ask nothing.")] = False,
) -> None:
    """Bring a teacher LLM's knowledge into a folder. Stop it with Ctrl-C and start it again: no answer is lost."""
    from .data.own import own_folder
    from .data.sessions import DOMAINS
    from .teacher.distillation import distilled_text, estimate, estimate_text
    from .teacher.recording import FILES, PATTERNS_FILE, distill, export_recorded, folder_plan, write_patterns

    own = own_folder(domain)
    if own is None:
        options.one_of("domain", domain, DOMAINS)
    options.one_of("teacher", teacher, TEACHERS)
    for name in TEACHERS[teacher]:
        if context.get_parameter_source(name).name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{option} says nothing about --teacher {teacher}: leave it out, or give another --teacher"
            )
    folder, files = out or own or Path("knowledge", domain), FILES | {"patterns": PATTERNS_FILE}
    options.one_of("kind", kind, files)
    if kind == "patterns" and teacher != "recorded":
        raise ValueError(f"teacher = {teacher!r}: patterns are mined from training bundles; leave --teacher out")
    if dry_run and teacher == "recorded":
        typer.echo(f"Nobody is asked and nothing is paid. Without --dry-run this writes {folder / files[kind]}.")
        return
    if not dry_run:
        check_writable(folder, "--out")  # before anything is paid for
    if kind == "patterns":
        path, found = write_patterns(domain, folder, limit=limit)
        typer.echo(f"{len(found):,} patterns found, the most frequent first: {found[0].text}")
        typer.echo(f"Written: {path}")
        return
    if teacher == "recorded":
        typer.echo(f"Written: {export_recorded(kind, domain, folder, limit=limit)}")
        return
    plan = folder_plan(kind, domain, folder, limit=limit)
    asked = _teacher(teacher, model, base_url, key_variable, concurrency, extra)
    left = estimate(plan, asked)
    typer.echo(f"{asked.name}: {estimate_text(left, price_in, price_out)}")
    if dry_run:
        return
    if left.calls and not asked.is_local and not yes:
        typer.confirm("Go on?", abort=True)
    done = distill(asked, kind, domain, folder, limit=limit)
    typer.echo(distilled_text(done, asked.usage, price_in, price_out))
    typer.echo(f"Written: {folder}")


def _teacher(name: str, model: str, base_url: str, key_variable: str, concurrency: int, extra: dict):
    """The live teacher of that name."""
    from dataclasses import replace

    from .config import StudentConfig, get_profile, known_profiles
    from .student.backbone import load_student
    from .student.local_teacher import LocalTeacher
    from .teacher.endpoint import ChatTeacher

    if not model:
        raise ValueError("model = '': name the teacher's model with --model")
    if name == "local":
        known = known_profiles().get(model)
        student = known.student if known else StudentConfig(source="hub", id=model)
        return LocalTeacher(load_student(replace(get_profile("smol"), student=student)))
    return ChatTeacher(model, base_url=base_url, key_variable=key_variable, concurrency=concurrency, extra=extra)


@app.command("results")
def show_results(
    results: options.Results = Path("results"),
    profile: Annotated[str | None, typer.Option(help="Only this profile.")] = None,
    domain: options.DomainName = None,
    verify: Annotated[bool, typer.Option(help="Compute every number again from the predictions first.")] = False,
    markdown: Annotated[bool, typer.Option(help="Print a Markdown table.")] = False,
) -> None:
    """Print the recorded runs as a table."""
    from .config import get_profile
    from .data.own import domain_name, own_folder
    from .data.sessions import DOMAINS
    from .report.tables import no_records, results_table
    from .study.records import load_all
    from .study.records import verify as verify_record

    every = load_all(results)
    if profile and profile not in {r.profile for r in every}:  # there may be records of a profile of somebody's own
        get_profile(profile)
    own = domain and own_folder(domain)
    called = domain and domain_name(domain)
    if called and not own and called not in {r.domain for r in every}:  # or of a folder that was called so
        options.one_of("domain", called, DOMAINS)
    found = [r for r in every if (profile in (None, r.profile)) and (called in (None, r.domain))]
    if not found:
        typer.secho(f"error: {no_records(results, every, profile, domain)}", err=True, fg="red")
        raise typer.Exit(1)
    if verify:
        for record in found:
            verify_record(record, own)
        typer.echo(f"{len(found)} records agree with their predictions.")
    typer.echo(results_table(found, markdown=markdown))


@app.command("report")
def replication_report(
    results: options.Results = Path("results"),
    claims: options.ClaimsFile = None,
    profile: Annotated[str | None, typer.Option(help="Whose records judge; by default the one of the claims.")] = None,
    book: options.Book = None,
) -> None:
    """Judge the papers' claims by the records, and print the verdicts."""
    from dataclasses import replace

    from .config import get_profile
    from .data.sessions import PUBLIC_DOMAINS
    from .files import own_file
    from .report.claims import load_claims
    from .report.replication import judged_claims, summary_table, write_report
    from .report.tables import no_records
    from .study.pipeline import Pipeline
    from .study.records import load_all

    path = claims or own_file("claims.yml")
    known = load_claims(path)
    if profile:
        known = replace(known, profile=get_profile(profile).name)
    records = load_all(results)
    if known.profile not in {r.profile for r in records}:
        typer.echo(f"note: {no_records(results, records, known.profile)}", err=True)
    studies = [(known.profile, domain) for domain in PUBLIC_DOMAINS]
    studies += [(known.control_profile, domain) for control in known.controls for domain in control.domains]
    stages = {domain: [stage.name for stage in Pipeline(name, domain).stages] for name, domain in studies}
    root = path.parent if (path.parent / "notebooks").is_dir() else None  # an installed package has no chapters
    judgements = judged_claims(known, records, stages, root=root)
    typer.echo(summary_table(judgements))
    if book:
        typer.echo(f"Written: {', '.join(map(str, write_report(book, known, judgements, records)))}")


@app.command()
def explorer(
    page: options.Page,
    profile: options.ProfileName = "toy",
    domain: options.DomainName = None,
    seed: options.Seed = 0,
    results: options.Results = Path("results"),
) -> None:
    """Write a recorded study's router explorer as one page that needs no kernel and no network."""
    from .book.explorer.static import RouterExplorer
    from .study.study import Study

    study = Study(profile, domain, seed, results=results)
    path = RouterExplorer.from_results(results, study.profile.name, study.source, seed=seed).save(page)
    typer.echo(f"{path}: {path.stat().st_size / 1000:.0f} kB")


@app.command()
def doctor() -> None:
    """Say what this machine can run, and what is missing."""
    from .report.doctor import report

    typer.echo(report())


@data_app.command("fetch")
def data_fetch(
    domain: Annotated[str | None, typer.Option(help="electronic, clothing or food; by default all three.")] = None,
    raw: Annotated[bool, typer.Option(help="The raw SIGIR 2022 files as well (for statistics).")] = True,
) -> None:
    """Download the public data into the cache, and verify it."""
    from .data.public import fetch_all
    from .data.sessions import PUBLIC_DOMAINS
    from .files import cache_dir

    paths = fetch_all([domain] if domain else PUBLIC_DOMAINS, raw=raw)
    typer.echo(f"{len(paths)} files, all with the right SHA-256, in {cache_dir('data')}")


@data_app.command("verify")
def data_verify() -> None:
    """Check the hash of every cached file, and load every split."""
    from .data.domains import load_domain
    from .data.public import fetch_all
    from .data.sessions import PUBLIC_DOMAINS, SPLITS

    paths = fetch_all(progress=False)
    counts = {name: [len(load_domain(name, split)) for split in SPLITS] for name in PUBLIC_DOMAINS}
    typer.echo(f"{len(paths)} files have the right SHA-256.")
    for name, sizes in counts.items():
        typer.echo(f"{name}: " + ", ".join(f"{n} {split}" for n, split in zip(sizes, SPLITS, strict=True)))


@data_app.command("stats")
def data_stats() -> None:
    """Print the published counts, computed from the files."""
    from .report.tables import stats_table

    typer.echo(stats_table())


def main() -> None:
    """Run the command; expected failures end with one sentence instead of a traceback."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it misses optional kernels aloud, at every import
    raise SystemExit(exit_code(app, sys.argv[1:]))


if __name__ == "__main__":
    main()

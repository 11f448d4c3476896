"""dedup: which documents and lines say again what others say; across all snapshots."""

from l3_platform.orchestration import planted
from l3_platform.orchestration.card import Card, histogram, samples
from l3_platform.orchestration.stage import Build, Built, Check, Made, Verdict, stage_asset


def _show_versions(made: Made) -> Card:
    cases = {"five old versions": "NOT s.newest", "five newest of several": "s.newest AND s.versions > 1"}
    return Card(samples=samples(made.inputs["documents"], [made.dataset], cases, "d.fetch_time, s.versions"))


@stage_asset(group="dedup", kinds={"duckdb"}, checks=[planted.check("url_versions")], show=_show_versions)
def url_versions(build: Build) -> Built:
    """The newest fetch of each canonical URL over all snapshots; older ones are marked (Llama 3, section 3.1.1)."""
    from l3_platform.dedup.urls import build_url_versions

    return build_url_versions(**build.inputs, out=build.out, settings=build.settings)


def _show_signatures(made: Made) -> Card:
    return Card(samples=samples(made.inputs["documents"], [made.dataset], {"five signed": "true"}, "hex(s.signature[1:16])"))


@stage_asset(group="dedup", kinds={"numba"}, show=_show_signatures)
def document_signatures(build: Build) -> Built:
    """The MinHash signature of every document: those of datasketch's `affine32` scheme. A new snapshot signs only its own."""
    from l3_platform.dedup.minhash import build_document_signatures

    return build_document_signatures(**build.inputs, out=build.out, settings=build.settings)


def _removed_are_alike(made: Made) -> Verdict:
    """Every removed document has a true Jaccard with its representative at or above the threshold."""
    threshold = made.settings.dedup.threshold
    rows = made.dataset.read(["representative", "jaccard"]).to_pylist()
    removed = [row["jaccard"] for row in rows if row["representative"] is False]
    return Verdict(
        all(jaccard is not None and jaccard >= threshold for jaccard in removed),
        {"removed": len(removed), "smallest true Jaccard": min(removed, default=1.0), "threshold": threshold},
    )


def _no_giant_cluster(made: Made) -> Verdict:
    sizes = [size for size in made.dataset.read(["cluster_size"])["cluster_size"].to_pylist() if size]
    largest, documents = max(sizes, default=0), len(sizes)
    return Verdict(largest <= max(50, 0.1 * documents), {"largest cluster": largest, "documents": documents})


def _show_duplicates(made: Made) -> Card:
    rows = made.dataset.read(["representative", "jaccard"]).to_pylist()
    similar = [row["jaccard"] for row in rows if row["representative"] is False]
    cases = {
        "five removed": "s.representative = false",
        "five kept of a cluster": "s.representative AND s.cluster_size > 1",
    }
    return Card(
        samples=samples(made.inputs["documents"], [made.dataset], cases, "s.jaccard, s.cluster_size"),
        chart=histogram(similar, "true Jaccard with the representative", made.settings.dedup.threshold) if similar else None,
    )


@stage_asset(
    group="dedup",
    kinds={"numba", "duckdb"},
    checks=[
        Check(
            "removed_documents_are_alike",
            _removed_are_alike,
            blocking=True,
            description="true Jaccard of every removed pair",
        ),
        Check(
            "no_giant_cluster",
            _no_giant_cluster,
            blocking=True,
            description="a cluster of a tenth of the corpus is a bug, not a find",
        ),
        planted.check("duplicate_documents"),
    ],
    show=_show_duplicates,
)
def duplicate_documents(build: Build) -> Built:
    """Near duplicates: MinHash bands propose pairs, true Jaccard decides, the newest document of a cluster stays."""
    from l3_platform.dedup.minhash import build_duplicate_documents

    return build_duplicate_documents(**build.inputs, out=build.out, settings=build.settings)


def _show_lines(made: Made) -> Card:
    cases = {"five that lose most": "s.removed_chars > 40", "five untouched": "s.removed_chars = 0"}
    return Card(
        samples=samples(
            made.inputs["documents"],
            [made.dataset],
            cases,
            "len(s.removed_lines) AS removed_lines, s.removed_chars, s.lines",
        )
    )


@stage_asset(group="dedup", kinds={"duckdb"}, checks=[planted.check("repeated_lines")], show=_show_lines)
def repeated_lines(build: Build) -> Built:
    """Lines seen more than six times in a bucket of 30 M documents of a language, counted exactly (Llama 3, section 3.1.1)."""
    from l3_platform.dedup.lines import build_repeated_lines

    return build_repeated_lines(**build.inputs, out=build.out, settings=build.settings)

"""Writing vectors to a repository of the Hub in one commit, and reading them at one."""

import contextlib
import glob
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from steer.algebra._composition import Composition
from steer.algebra._file.file import load
from steer.algebra._file.folder import check_file_name, save_by_domain
from steer.algebra._hub.card import measured, model_card
from steer.algebra._provenance import Tuning
from steer.algebra._vector import Vector
from steer.errors import CapabilityError, SteerError, VectorFileError
from steer.show import Shown

_SUFFIX = ".safetensors"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def push(
    vectors: Mapping[str, Vector],
    repo: str,
    results: Sequence[Shown | str],
    license: str | None,
    private: bool | None,
    token: str | None,
) -> str:
    """Write vectors and their card to a repository, which is created if needed; return the commit.

    A repository that holds other vectors or weights is refused: reading it would mix both.
    """
    from huggingface_hub import CommitOperationAdd

    shown = measured(results)
    if license is not None:
        vectors = {
            domain: replace(vector, provenance=replace(vector.provenance, license=license))
            for domain, vector in vectors.items()
        }
    api = _api(token)
    with tempfile.TemporaryDirectory() as folder:
        save_by_domain(vectors, folder)
        with _asking(repo):
            repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
            head = api.model_info(repo)
        _check_alone(repo, vectors, [file.rfilename for file in head.siblings or ()])
        names = [f"{domain}{_SUFFIX}" for domain in vectors]
        files: dict[str, Path | bytes] = {name: Path(folder, name) for name in names}
        files["README.md"] = model_card(vectors, repo, shown).encode()
        with _asking(repo):
            added = [CommitOperationAdd(name, content) for name, content in files.items()]
            message = f"Vectors: {', '.join(vectors)}"[:200]
            made = api.create_commit(repo, added, commit_message=message, parent_commit=head.sha)
    return str(made.oid)


def pull(
    repo: str,
    domain: str | None,
    revision: str | None,
    token: str | None,
    local_files_only: bool,
) -> dict[str, Vector]:
    """Read the vectors at the top of a repository by domain; each names the commit it is from."""
    if domain is not None:
        check_file_name(domain)
    with _asking(repo):
        found = _api(token).snapshot_download(
            repo,
            revision=revision,
            allow_patterns=f"{'*' if domain is None else glob.escape(domain)}{_SUFFIX}",
            ignore_patterns=["*/*", "*\\*"],  # nothing that a name puts elsewhere is fetched
            local_files_only=local_files_only,
        )
    folder = Path(found)
    if not _COMMIT.fullmatch(folder.name):
        raise VectorFileError(
            f"{repo}: the Hub did not name a commit",
            found=repr(folder.name),
            expected="40 hexadecimal digits",
            do="check HF_ENDPOINT, the server that was asked",
        )
    there = {path.name.removesuffix(_SUFFIX): path for path in sorted(folder.glob(f"*{_SUFFIX}"))}
    wanted = there if domain is None else {d: p for d, p in there.items() if d == domain}
    if not wanted:
        raise VectorFileError(
            f"{repo}: the repository lacks this vector",
            found=", ".join(there) or f"no {_SUFFIX} file at its top",
            expected=f"{'DOMAIN' if domain is None else domain}{_SUFFIX}",
            do="check the repository, the domain and the revision",
        )
    return {name: _pinned(path, repo) for name, path in wanted.items()}


def pull_one(
    repo: str,
    domain: str | None,
    revision: str | None,
    token: str | None,
    local_files_only: bool,
) -> Vector:
    """Read the vector of a domain, or the only one of a repository."""
    found = pull(repo, domain, revision, token, local_files_only)
    if len(found) > 1:
        raise VectorFileError(
            f"{repo}: the repository holds several vectors",
            found=", ".join(found),
            expected="one, or the name of a domain",
            do=f"pass domain={next(iter(found))!r}, or use steer.Composition.from_hub",
        )
    return next(iter(found.values()))


def settled(composition: Composition) -> dict[str, Vector]:
    """Return the vectors of a composition, each with its setting as tuning and with the gate.

    A tuning that says the same keeps its figures.
    """
    if composition.per_row:
        raise CapabilityError(
            "a repository holds one setting",
            found="coefficients per prompt",
            expected="one coefficient of each domain",
            do="set them first: knobs(medical=0.8)",
        )
    found = {}
    row = composition.coefficients[0].tolist()
    for (domain, part), coefficient in zip(composition.parts.items(), row, strict=True):
        vector, tuned = part.vector, part.vector.tuning
        layer = vector.layers[0] if vector.layers and len(vector) == 1 else None
        setting = Tuning(layer, coefficient, part.operator, part.scope)
        if tuned is None or replace(tuned, score=None, kl=None, unsteered=None) != setting:
            tuned = setting
        found[domain] = replace(vector, tuning=tuned, gate=composition.gate or vector.gate)
    return found


def _pinned(path: Path, repo: str) -> Vector:
    """Return the vector of a file, whose provenance says where on the Hub it is."""
    vector = load(path)
    made = vector.provenance
    hub = f"hf://{repo}@{path.parent.name}/{path.name}"
    return replace(vector, provenance=replace(made, arguments={**made.arguments, "hub": hub}))


def _check_alone(repo: str, vectors: Mapping[str, Vector], there: Sequence[str]) -> None:
    tops = [name.removesuffix(_SUFFIX) for name in there if name.endswith(_SUFFIX)]
    others = sorted({name for name in tops if "/" not in name} - {*vectors})
    if others:
        raise VectorFileError(
            f"{repo}: the repository holds other safetensors files",
            found=", ".join(f"{name}{_SUFFIX}" for name in others),
            expected="none but " + ", ".join(f"{domain}{_SUFFIX}" for domain in vectors),
            do="push all domains as one composition, delete outdated files, or name another "
            "repository",
        )


def _api(token: str | None) -> Any:
    from huggingface_hub import HfApi

    from steer import __version__

    return HfApi(token=token, library_name="steer", library_version=__version__)


@contextlib.contextmanager
def _asking(repo: str) -> Iterator[None]:
    """Turn what the Hub's client raises into an error of this library."""
    from huggingface_hub.errors import HfHubHTTPError

    transport: type[Exception] = HfHubHTTPError.__bases__[0]  # of the version's HTTP client
    try:
        yield
    except SteerError:
        raise
    except (OSError, ValueError, RuntimeError, transport) as error:
        told = error.__cause__ if isinstance(error, RuntimeError) else None  # of an upload
        raise VectorFileError(
            f"{repo}: the request to the Hub failed",
            found=" ".join(str(told or error).split())[:400] or type(error).__name__,
            expected="a repository that exists or can be created, and access to it",
            do="check the name, the network, HF_HUB_OFFLINE, and your token: hf auth login",
        ) from error

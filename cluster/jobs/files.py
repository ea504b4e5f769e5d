"""Which files of a user's project does a job get?

The project is the nearest folder above the file that is to run which has a pyproject.toml or a git repository, else the
file's own folder. Of it goes what git would keep: what it tracks, and what no .gitignore leaves out. Without git the
.gitignore files are read here. Environments and stores of Umbel never go. It must not know Ray, or how files travel.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from umbel.runtime.provenance.project import nearest
from umbel.scheduler.errors import UsageError

__all__ = ["DEFAULT_LIMIT_BYTES", "Project", "find_project", "project_root", "write_zip"]

#: More than this is hardly code: data belong into a store, or where every node can read them.
DEFAULT_LIMIT_BYTES = 100 * 2**20
#: Seconds that git gets to list a project's files.
GIT_LIMIT_S = 60.0
#: How many of the largest files an error names.
NAMED = 5
#: The earliest time that a zip file can say; always the same, so that equal files make equal archives.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Project:
    """A project's folder, and what of it goes along."""

    root: Path
    #: The file that is to run, relative to the root, with slashes.
    file: str
    #: Relative to the root, with slashes, sorted.
    files: tuple[str, ...]
    size_bytes: int
    #: Links to folders, which don't go along.
    left_out: tuple[str, ...] = ()

    def mode(self, name: str) -> int:
        """A file's permissions, as git keeps them: whether its owner may execute it."""
        return 0o755 if (self.root / name).stat().st_mode & 0o100 else 0o644

    def read(self, name: str) -> bytes:
        """What is in a file.

        Raises:
            UsageError: it can't be read.
        """
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise UsageError(
                "a file of the project can't be read", got=str(error), hint="name it in .gitignore"
            ) from None

    def digest(self) -> str:
        """32 hexadecimal digits that are equal for equal files.

        Raises:
            UsageError: a file can't be read.
        """
        found = hashlib.sha256()
        for name in self.files:
            content = hashlib.sha256(self.read(name)).hexdigest()
            found.update(f"{name}\0{self.mode(name):o}\0{content}\n".encode("utf-8", "surrogateescape"))
        return found.hexdigest()[:32]

    def packages_in_src(self) -> list[str]:
        """Packages of a project that keeps them in ``src/``, as ``src/name``: installed here, importable there only if
        they are put on the path."""
        found = {PurePosixPath(file).parts[1] for file in self.files if _is_package_in_src(PurePosixPath(file))}
        return [f"src/{name}" for name in sorted(found) if name != "umbel"]


def find_project(file: Path, root: Path | None = None, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Project:
    """The project that a file belongs to.

    Args:
        file: the file that is to run; it goes along even if a .gitignore names it.
        root: the project's folder, if it is not to be looked for.
        limit_bytes: of all files together, uncompressed.

    Raises:
        UsageError: there is no such file, it lies outside of the folder, or the project is too large.

    Cost: one call of git, or a walk through the folder, and one look at each file.
    """
    if not file.is_file():
        raise UsageError("there is no such file", got=str(file), expected="a Python file of this machine")
    # The file itself is not resolved: a link to a file goes along as that file, under the link's name.
    file = file.parent.resolve() / file.name
    root = root.resolve() if root is not None else project_root(file)
    if not file.is_relative_to(root):
        raise UsageError(
            "the file does not lie in the folder that is to be shipped",
            got=str(file),
            expected=f"a file in {root}",
            hint="name a folder above it with --working-dir",
        )
    name = file.relative_to(root).as_posix()
    # A folder that the repository around it ignores has nothing to list, but is what is meant all the same.
    listed = _listed_by_git(root) or list(_walk(root))
    chosen = {*_without_foreign(root, listed), name}
    files = sorted(path for path in chosen if (root / path).is_file())
    sizes = {path: (root / path).stat().st_size for path in files}
    total = sum(sizes.values())
    if total > limit_bytes:
        raise _too_large(root, sizes, limit_bytes)
    links = sorted(path for path in chosen if (root / path).is_dir())
    return Project(root, name, tuple(files), total, tuple(links))


def project_root(file: Path) -> Path:
    """The nearest folder above a file with a pyproject.toml or a git repository; its own folder if there is none."""
    return nearest(file.parent, "pyproject.toml", ".git") or file.parent


def write_zip(project: Project, target: Path) -> None:
    """Write a project's files into an archive; equal files make equal archives, byte for byte.

    Raises:
        UsageError: a file can't be read.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in project.files:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = project.mode(name) << 16
            archive.writestr(info, project.read(name))


def _is_package_in_src(path: PurePosixPath) -> bool:
    return len(path.parts) == 3 and path.parts[0] == "src" and path.name == "__init__.py"


def _listed_by_git(root: Path) -> list[str] | None:
    """What git keeps of a folder, repositories inside it included; None without git or a repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, timeout=GIT_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    found: list[str] = []
    for entry in filter(None, os.fsdecode(done.stdout).split("\0")):
        name = entry.rstrip("/")
        inner = root / name
        if inner.is_dir() and not inner.is_symlink():  # a submodule, or another repository
            # Asked only where a repository is: elsewhere git would answer for the one around it, without end.
            below = _listed_by_git(inner) if (inner / ".git").exists() else []
            found += [f"{name}/{path}" for path in (below if below is not None else _walk(inner))]
        else:
            found.append(name)
    return found


def _walk(root: Path) -> Iterator[str]:
    """The files below a folder that no .gitignore leaves out; links to folders are given, not followed."""
    from pathspec import GitIgnoreSpec

    rules: dict[Path, GitIgnoreSpec] = {}

    def is_ignored(path: Path, is_folder: bool) -> bool:
        for folder in path.parents:  # from the nearest to the root: the nearest rule that speaks of it decides
            if folder in rules:
                verdict = rules[folder].check_file(path.relative_to(folder).as_posix() + "/" * is_folder).include
                if verdict is not None:
                    return bool(verdict)
            if folder == root:
                break
        return False

    for text, folders, files in os.walk(root):
        here = Path(text)
        if ".gitignore" in files:
            with (here / ".gitignore").open(encoding="utf-8", errors="replace") as stream:
                rules[here] = GitIgnoreSpec.from_lines(stream)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(
            name
            for name in folders
            if name not in (".git", "__pycache__", *links)
            and not _is_foreign(here / name)
            and not is_ignored(here / name, True)
        )
        for name in sorted([*files, *links]):
            if not is_ignored(here / name, False):
                yield (here / name).relative_to(root).as_posix()


def _without_foreign(root: Path, paths: list[str]) -> list[str]:
    above = {path: [folder for folder in PurePosixPath(path).parents if folder.name] for path in paths}
    folders = {folder for found in above.values() for folder in found}
    never = {folder for folder in folders if folder.name in (".git", "__pycache__") or _is_foreign(root / folder)}
    return [path for path in paths if never.isdisjoint(above[path])]


def _is_foreign(folder: Path) -> bool:
    """Whether a folder is an environment of Python's, or a store of Umbel's."""
    return (folder / "pyvenv.cfg").is_file() or ((folder / "umbel.json").is_file() and (folder / "runs").is_dir())


def _too_large(root: Path, sizes: dict[str, int], limit_bytes: int) -> UsageError:
    largest: Sequence[tuple[str, int]] = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:NAMED]
    named = ", ".join(f"{path} ({_mib(size)})" for path, size in largest)
    return UsageError(
        f"the project in {root} is too large to be shipped; its largest files: {named}",
        got=f"{_mib(sum(sizes.values()))} in {len(sizes)} files",
        expected=f"at most {_mib(limit_bytes)}",
        hint="name what the job does not need in .gitignore, put data where every node can read them,"
        " or allow more with --max-size",
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.1f} MiB"

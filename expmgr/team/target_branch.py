"""Finds the branch that variants are merged into, and its newest commit; by it rules and signers are read."""

from __future__ import annotations

from expmgr.git.remotes import default_branch, remote_followed, remote_names
from expmgr.git.repo import CommitId
from expmgr.project import Project
from expmgr.settings import Settings, read_settings, shared_settings


def settings_at(project: Project, commit: str, where: str) -> Settings:
    return shared_settings(lambda path: project.repo.read(commit, path), where)


def team_remote(project: Project) -> str | None:
    """The remote whose branches are the team's: the one that main or master follows, `origin`, or the only one. Somebody
    else's, fetched to look at, never is."""
    remotes = remote_names(project.repo)
    followed = (remote_followed(project.repo, name) for name in ("main", "master"))
    only = remotes[0] if len(remotes) == 1 else None
    return next((one for one in (*followed, "origin", only) if one in remotes), None)


def newest(project: Project, branch: str) -> CommitId | None:
    """The newest commit of a branch of the team's that this clone knows: its own, or the remote's where that goes on from
    it; None where there is none."""
    repo, remote = project.repo, team_remote(project)
    own = repo.commit_of(f"refs/heads/{branch}") if branch != "HEAD" else repo.commit_of("HEAD")
    theirs = repo.commit_of(f"refs/remotes/{remote}/{branch}") if remote is not None and branch != "HEAD" else None
    goes_on = theirs is not None and (own is None or repo.is_ancestor(own, theirs))
    return theirs if goes_on else own


def target_of(project: Project) -> str:
    """The branch that variants are merged into, as people call it: what this machine's settings say, or those on the default
    branch; or that branch itself: the default one of the team's remote, main or master. HEAD where there is none of them.

    What the checkout says counts where there is no default branch alone: it may be anybody's variant.
    """
    machine = read_settings(None, project.layout.own).target
    if machine is not None and newest(project, machine) is not None:
        return machine
    remote = team_remote(project)
    default = default_branch(project.repo, remote) if remote is not None else None
    for name in (default, "main", "master"):
        commit = newest(project, name) if name is not None else None
        if name is not None and commit is not None:
            shared = settings_at(project, commit, name).target
            return shared if shared is not None and newest(project, shared) is not None else name
    named = project.settings.target
    return named if named is not None and newest(project, named) is not None else "HEAD"

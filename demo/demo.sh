#!/usr/bin/env bash
# Two variants of iris in a git repository of their own: made, trained with three seeds each, compared.
# Usage: demo.sh [FOLDER-WITH-expmgr]
set -euo pipefail
[ $# -eq 0 ] || PATH="$1:$PATH"

repository="$(mktemp -d "${TMPDIR:-/tmp}/expmgr-demo-XXXXXX")"
cd "$repository"
git init --quiet --initial-branch=main
if ! git var GIT_COMMITTER_IDENT >/dev/null 2>&1; then
  git config user.name "expmgr demo"
  git config user.email "demo@example.com"
fi

say() {
  local shown="" word
  for word in "$@"; do
    case "$word" in *[!A-Za-z0-9/._=-]*) word="'$word'" ;; esac
    shown+=" $word"
  done
  printf '\n$%s\n' "$shown"
  "$@"
}

echo "In a new repository: $repository"
say expmgr init --example iris --commit
say expmgr new iris/baseline -m "as in the guide: two layers of ten"
say expmgr new iris/wide --from iris/baseline --set "model.hidden_units=[20, 20]" -m "twice the width"
say expmgr run iris/baseline iris/wide --seeds 0-2
say expmgr compare iris/baseline iris/wide
say expmgr compare iris/baseline iris/wide --metric loss

cat <<END

The repository lies in $repository
Look around:  cd $repository && export PATH="$(dirname "$(command -v expmgr)"):\$PATH"
  expmgr list
  expmgr show iris/wide
  expmgr check iris/wide --against iris/baseline
  expmgr show iris/wide:0
  git diff exp/iris/baseline exp/iris/wide
END

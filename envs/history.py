"""Bash that takes the future out of a git repository, and proves that it is gone.

Agents find fixes in what an image's builder left behind: branches, tags, stashes, notes, reflogs,
other worktrees, borrowed objects, packs that nothing names any more. Names are dropped first. What
remains is judged by objects alone, so it does not matter which place was forgotten: every object
that git can read must be reachable from HEAD, or the start fails.
"""

from __future__ import annotations

# Whatever can name a commit, or make git show one that is not there. The folder `.git/modules` has
# the histories of submodules, which are other repositories and stay.
FORGET_NAMES = """
(cd .git && exec rm -rf refs packed-refs logs worktrees info/grafts info/refs lost-found rr-cache \\
  *_HEAD BISECT_* rebase-merge rebase-apply sequencer svn branches objects/info/commit-graph \\
  objects/info/commit-graphs objects/pack/multi-pack-index*)
mkdir -p .git/refs/heads .git/refs/tags
echo 'ref: refs/heads/main' > .git/HEAD
"""

# HEAD is the start commit. Two listings tell; rewriting the packs costs seconds in a large
# repository and happens only where they differ.
REMOVE_AND_PROVE = """
if [[ $(<.git/config) == *'[remote '* ]]; then
  for remote in $(git remote); do git remote remove "$remote"; done
fi
unset GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_OBJECT_DIRECTORY
future() {
  comm -13 <(git rev-list --objects --no-object-names HEAD | LC_ALL=C sort -u) \\
    <(git cat-file --batch-all-objects --batch-check='%(objectname)')  # in order, each once
}
left=$(future)
if [ -n "$left" ] || [ -e .git/objects/info/alternates ]; then
  rm -f .git/objects/pack/*.keep .git/objects/pack/*.promisor
  git config --unset-all extensions.partialClone || :
  git -c repack.writeBitmaps=false repack -a -d -q
  rm -f .git/objects/info/alternates
  git prune --expire=now
  left=$(future)
fi
if [ -n "$left" ]; then
  fail "the repository still holds $(wc -l <<<"$left") objects that the base commit does not need"
fi
names=$(git for-each-ref --format='%(refname)')
[ "$names" = refs/heads/main ] || fail "expected no refs but refs/heads/main, found" $names
"""

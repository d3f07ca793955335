# shellcheck shell=bash
# The Python environment of scripts/demo, scripts/test and scripts/release, which
# source this.
#
# prepare_environment INTERPRETER EXTRA...
#
# sets PYTHON to an interpreter that can import kerassl with the given extras of
# pyproject.toml, and installs only what is missing for that:
#
# * INTERPRETER, where it is not empty, and else an active virtual environment
#   is used as it is. Requirements that it lacks are installed into it; kerassl
#   itself is not: it is found through PYTHONPATH.
# * Otherwise a virtual environment of the project's own is made in
#   $KERASSL_VENV, or in .venv, and the project is installed into it. A stamp
#   in it holds what was installed and a hash of pyproject.toml, and a second
#   run installs nothing. $KERASSL_VENV comes before an active environment.
#
# PyTorch comes first, from $KERASSL_TORCH: pip's arguments, split at spaces.
# Where PyTorch's own index can be reached, a build without CUDA is
#   KERASSL_TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
TORCH=${KERASSL_TORCH:-torch==2.13.0}
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}
# Threads that wait must not spin: beside another process on the same cores
# that made PyTorch's steps ten times slower here.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
export PIP_DISABLE_PIP_VERSION_CHECK=1
# Where it is set, each process compiles Keras and its backend anew: 25 s of CPU
# time instead of 7, in each of the many that tests and demo start.
unset PYTHONDONTWRITEBYTECODE

say() {
  printf '%s\n' "$*" >&2
}

die() {
  say "${0##*/}: $*"
  exit 2
}

is_new_enough() { # INTERPRETER
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_interpreter() {
  local candidate
  for candidate in python3.11 python3.12 python3.13 python3 python; do
    if command -v "$candidate" >/dev/null && is_new_enough "$candidate" &&
      "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "needs Python 3.11 or newer with its venv module"
}

# Most of what comes along is never imported, and compiling it all takes a
# minute: Python compiles what is, once, on the first import.
install() { # pip's arguments
  "$PYTHON" -m pip install --quiet --quiet --no-compile "$@"
}

install_torch() {
  local -a arguments
  read -ra arguments <<<"$TORCH"
  install "${arguments[@]}"
}

missing_requirements() { # EXTRA...
  "$PYTHON" - "$ROOT/pyproject.toml" "$@" <<'PYTHON'
import importlib.metadata
import re
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
requirements = list(project["dependencies"])
for extra in sys.argv[2:]:
    requirements += project["optional-dependencies"][extra]
for requirement in requirements:
    name = re.match(r"[\w.-]+", requirement)[0]
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        print(requirement)
PYTHON
}

use_existing_environment() { # EXTRA...
  local requirement listing
  local -a lacking=()
  is_new_enough "$PYTHON" || die "$PYTHON is not Python 3.11 or newer"
  listing=$(missing_requirements "$@")
  while IFS= read -r requirement; do
    case $requirement in
      "") ;;
      torch | torch[!a-z]*) install_torch ;;
      *) lacking+=("$requirement") ;;
    esac
  done <<<"$listing"
  if [ "${#lacking[@]}" -gt 0 ]; then
    say "Installing into the environment of $PYTHON: ${lacking[*]}"
    install "${lacking[@]}"
  fi
  export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
}

stamp_line() { # the project's place and a hash of what decides the installation
  "$PYTHON" - "$ROOT" "$TORCH" <<'PYTHON'
import hashlib
import pathlib
import sys

root, torch = sys.argv[1:]
text = pathlib.Path(root, "pyproject.toml").read_bytes() + torch.encode()
print(root, hashlib.sha256(text).hexdigest())
PYTHON
}

use_own_environment() { # FOLDER EXTRA...
  local folder=$1 interpreter stamp line extra recorded="" extras="" missing=""
  local started=$SECONDS
  shift
  PYTHON=$folder/bin/python
  if ! "$PYTHON" -c 'import pip' 2>/dev/null; then
    if [ -e "$folder" ] && [ ! -e "$folder/pyvenv.cfg" ] &&
      [ -n "$(ls -A "$folder")" ]; then
      die "$folder is neither empty nor a virtual environment"
    fi
    interpreter=$(find_interpreter)
    say "Making a virtual environment in $folder"
    "$interpreter" -m venv --clear "$folder"
  fi
  folder=$(cd "$folder" && pwd)
  stamp=$folder/kerassl.stamp
  PYTHON=$folder/bin/python
  line=$(stamp_line)
  if [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" = "$line" ]; then
    recorded=" $(tail -n +2 "$stamp" | tr '\n' ' ')"
  fi
  for extra in "$@"; do
    case $recorded in
      *" $extra "*) ;;
      *)
        missing+=" $extra"
        extras+=${extras:+,}$extra
        ;;
    esac
  done
  if [ -n "$missing" ]; then
    say "Installing the project with$missing (some minutes the first time)"
    rm -f "$stamp"
    case "$missing " in *" torch "*) install_torch ;; esac
    install --editable "${ROOT}[$extras]"
    # shellcheck disable=SC2086  # a list of plain words
    printf '%s\n' "$line" $recorded $missing >"$stamp"
    say "Installed in $((SECONDS - started)) s"
  fi
}

prepare_environment() { # INTERPRETER EXTRA...
  local interpreter=$1
  shift
  if [ -z "$interpreter" ] && [ -z "${KERASSL_VENV:-}" ] &&
    [ -n "${VIRTUAL_ENV:-}" ] && [ "$VIRTUAL_ENV" != "$ROOT/.venv" ]; then
    interpreter=$VIRTUAL_ENV/bin/python
  fi
  if [ -n "$interpreter" ]; then
    PYTHON=$interpreter
    use_existing_environment "$@"
  else
    use_own_environment "${KERASSL_VENV:-$ROOT/.venv}" "$@"
  fi
  cd "$ROOT" || exit
}

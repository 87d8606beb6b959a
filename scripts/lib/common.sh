# shellcheck shell=bash
# Shared by the scripts in this folder; sourced, not run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
MIN_RUST=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$ROOT/Cargo.toml" | head -n 1)

say() { printf '%s\n' "$*" >&2; }

die() {
  say "error: $*"
  exit 1
}

# Prints the comment block that follows the shebang line: the text of --help.
print_help() {
  sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p;}' "$1"
}

# Ends the script with what to install when Rust or a C linker is missing or too old.
need_rust() {
  if ! command -v cargo >/dev/null 2>&1; then
    say "cargo is not installed (or not in PATH). BBH needs Rust $MIN_RUST or newer. Install it with"
    say "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    say "then open a new shell, or run: . \"\$HOME/.cargo/env\""
    exit 1
  fi
  local have
  have=$(cargo --version | sed -n 's/^cargo \([0-9]*\.[0-9]*\).*/\1/p')
  if [ "$(printf '%s\n%s\n' "$MIN_RUST" "$have" | sort -V | head -n 1)" != "$MIN_RUST" ]; then
    die "cargo $have is too old: BBH needs Rust $MIN_RUST or newer. Run: rustup update stable"
  fi
  if ! command -v cc >/dev/null 2>&1 && ! command -v clang >/dev/null 2>&1; then
    say "no C linker found. Install one:"
    say "    Debian, Ubuntu:  sudo apt-get install build-essential"
    say "    Fedora:          sudo dnf install gcc"
    say "    macOS:           xcode-select --install"
    exit 1
  fi
}

# Where cargo puts what it builds.
target_dir() {
  cargo metadata --format-version 1 --no-deps --manifest-path "$ROOT/Cargo.toml" |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

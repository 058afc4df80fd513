#!/usr/bin/env bash
# The walk-through of docs/training.md on 200 Tux Paint stamps, from pictures to the bench, with the minutes of each part.
# Each part goes on where it was stopped. Needs Debian's tuxpaint-stamps-default (or their folder as the first word), the
# `train` and `emoji` extras, and `python -m projects.emoji.networks` for the judge.
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=runs-local/stamps
part() {
    local begun=$SECONDS
    "$@"
    echo "$(((SECONDS - begun + 30) / 60)) min: $*"
}
python -m projects.stamps.prepare --stamps "${1:-/usr/share/tuxpaint/stamps}" --out $runs/my-pictures
part muse train vqgan laptop $runs/my-pictures --engine.folder $runs/vqgan
part muse tokenize $runs/my-pictures $runs/tokens --model $runs/vqgan/vqgan --size 128
part muse train base laptop $runs/tokens --vqgan $runs/vqgan/vqgan --engine.folder $runs/base
part muse export $runs/base $runs/my-model
part muse generate "a ladybug" --model $runs/my-model --out $runs/ladybug.png
part python -m projects.stamps.bench --model $runs/my-model --pictures $runs/my-pictures --out $runs/bench

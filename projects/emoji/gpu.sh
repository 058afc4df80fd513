#!/usr/bin/env bash
# Transformers of the paper's scale on a GPU that is lent for a while, one or both at once.
#   bash projects/emoji/gpu.sh PACKED SECONDS OUT base|superres...
# PACKED is what `projects.emoji.pack pack` wrote; the base needs drawings, networks/text_encoder, vqgan, and base-start if
# it is to start from one; super-resolution vqgan-superres as well. All is done in SECONDS; the weights come to OUT in
# pieces of 15 MB, beside the logs.
set -euo pipefail
cd "$(dirname "$0")/../.."
packed=$1 deadline=$2 out=$3 runs=runs-local/emoji
shift 3
declare -A batch=([base]=128 [superres]=64)
mkdir -p $runs "$out"
for part in networks vqgan vqgan-superres; do
    [ ! -d "$packed/$part" ] || cp -r "$packed/$part" $runs/
done
[ -f $runs/data-512/manifest.json ] || python3 -m projects.emoji.pack unpack "$packed/drawings"
python3 -m projects.emoji.train tokens --places.scale paper --parts "$@"
# Starting takes half a minute, and saving what was learnt another.
minutes=$(python3 -c "print(round(($deadline - $SECONDS - 65) / 60, 2))")
echo "$SECONDS s: training for $minutes minutes"
for part in "$@"; do
    start=$([ ! -d "$packed/$part-start" ] || echo "--$part-from $packed/$part-start")
    python3 -m projects.emoji.train "$part" --places.scale paper --batch "${batch[$part]}" --steps 100000 \
        --lent.minutes "$minutes" --lent.workers 6 --lent.save-every 5000 $start >"$out/$part.log" 2>&1 &
done
wait
for part in "$@"; do
    python3 -m projects.emoji.pack weights "$runs/paper/$part/$part" "$out/$part"
    tar -C "$runs/paper/$part" -czf "$out/$part.tar.gz" metrics.jsonl "$part/config.json"
done
echo "$SECONDS s: done"

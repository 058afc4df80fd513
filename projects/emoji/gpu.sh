#!/usr/bin/env bash
# The transformers of the model that ships on a GPU that is lent for a while, one after the other.
#   bash projects/emoji/gpu.sh PACKED SECONDS OUT base|superres...
#   MORE="--caption-mix 0.3 --meanings" bash projects/emoji/gpu.sh PACKED SECONDS OUT base     more options of the base's
# PACKED is what `projects.emoji.pack pack` wrote. The base needs networks/text_encoder of it, tokens, and base-start if it
# is to start from one; super-resolution tokens-superres, vqgan and vqgan-superres as well. Without tokens it takes
# drawings, and paints and encodes them. Each gets SECONDS; the weights come to OUT in pieces of 15 MB, beside the logs.
set -euo pipefail
cd "$(dirname "$0")/../.."
packed=$1 seconds=$2 out=$3 runs=runs-local/emoji
shift 3
declare -A batch=([base]=128 [superres]=32) steps=([base]=40000 [superres]=10000)
declare -A tokens=([base]=tokens [superres]=tokens-superres)
mkdir -p $runs "$out"
for part in networks vqgan vqgan-superres; do
    [ ! -d "$packed/$part" ] || cp -r "$packed/$part" $runs/
done
for part in "$@"; do
    begun=$SECONDS
    if [ -d "$packed/${tokens[$part]}" ]; then
        python3 -m projects.emoji.pack unpack "$packed/${tokens[$part]}"
    else
        [ -f $runs/data-512/pictures.npy ] || python3 -m projects.emoji.pack unpack "$packed/drawings"
        python3 -m projects.emoji.train tokens --parts "$part"
    fi
    # Starting takes a quarter of a minute, and saving what was learnt another.
    minutes=$(python3 -c "print(round(($seconds - ($SECONDS - $begun) - 32) / 60, 2))")
    echo "$SECONDS s: training $part for $minutes minutes"
    more=$([ "$part" != base ] || echo "${MORE:-}")
    start=$([ ! -d "$packed/$part-start" ] || echo "--$part-from $packed/$part-start")
    python3 -m projects.emoji.train "$part" --batch "${batch[$part]}" --steps "${steps[$part]}" --lent.graph \
        --lent.minutes "$minutes" --lent.workers 10 --lent.save-every 100000 $start $more 2>&1 | tee "$out/$part.log"
    python3 -m projects.emoji.pack weights "$runs/$part/$part" "$out/$part"
    tar -C "$runs/$part" -czf "$out/$part.tar.gz" metrics.jsonl "$part/config.json"
done
echo "$SECONDS s: done"

#!/usr/bin/env bash
# The shipped model from nothing: data, networks, VQGAN, base transformer; then its super-resolution to 256 px, unless the
# first word is `low`. Each part goes on where it was stopped.
# On 2 cores with AMX, as measured one by one (the whole has not been run in one go yet): data and networks 4 min, VQGAN
# 14 min, token cache 2 min, base 90 min of 6,600 steps; large data 2 min, f=8 VQGAN 17 min, its
# token cache 3 min, super-resolution 115 min of 5,200 steps, larger decoder 11 min. Needs the `emoji` extra.
set -euo pipefail
cd "$(dirname "$0")/../.."
python -m projects.emoji.build
python -m projects.emoji.networks
python -m projects.emoji.train vqgan
python -m projects.emoji.train base
if [ "${1:-}" != low ]; then
    python -m projects.emoji.build --size 256 --data data-256
    python -m projects.emoji.train vqgan-superres
    python -m projects.emoji.train superres
    python -m projects.emoji.train decoder
fi
echo "The model is in runs-local/emoji/model; judge it with: python -m projects.emoji.bench --model runs-local/emoji/model"

#!/usr/bin/env bash
# The emoji model from nothing: data, networks, VQGANs, base transformer, super-resolution and its larger decoder.
#   bash projects/emoji/train.sh          what ships, the paper's scale: 256 px, then 512; wants a GPU (gpu.sh lends one)
#   bash projects/emoji/train.sh half     half of it, which two cores can train: 128 px, then 256
#   bash projects/emoji/train.sh half low       only as far as the base
#   STEPS=4 bash projects/emoji/train.sh half   a rehearsal: so many steps of each part, in a clone of its own
# Each part goes on where it was stopped. Needs the `emoji` extra. A rehearsal of half takes 19 minutes on 2 cores that do
# other things too. Measured one by one (the whole has only been rehearsed in one go), on 2 cores with AMX: data and networks
# 4 min, VQGAN 14 min, f=8 VQGAN 17 min, larger decoder 11 min; half: token cache 2 min, base 90 min of 6,600 steps, larger
# data 2 min, its token cache 3 min, super-resolution 115 min of 5,200 steps; the paper's scale: larger data 7 min, token
# caches 22 and 5 min, and its transformers on one H200 14 and 9 min; on 2 cores without AMX the last trainings of its
# decoders 35 and 42 min.
set -euo pipefail
cd "$(dirname "$0")/../.."
scale=${1:-paper}
case $scale in half | paper) ;; *) echo "the scale is $scale; give half or paper" >&2; exit 2 ;; esac
train() { python -m projects.emoji.train "$1" --places.scale "$scale" ${STEPS:+--steps "$STEPS"}; }
python -m projects.emoji.build
python -m projects.emoji.build --size 256 --data data-256
python -m projects.emoji.networks
train vqgan
[ "$scale" = half ] || train decoder-low
train base
if [ "${2:-}" != low ]; then
    [ "$scale" = half ] || python -m projects.emoji.build --size 512 --data data-512
    train vqgan-superres
    train superres
    train decoder
    train decoder-drawn
fi
model=runs-local/emoji/$([ "$scale" = paper ] || echo half/)model
echo "The model is in $model; judge it with: python -m projects.emoji.bench --model $model"

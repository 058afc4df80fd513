#!/usr/bin/env bash
# The shipped model from nothing: data, networks, VQGAN, base transformer. Each part goes on where it was stopped.
# On 2 cores, from the seconds that a step takes there (the whole has not been run in one go yet): data 3 min, VQGAN
# 45 min, token cache 3 min, base 40 min. Needs the `emoji` extra.
set -euo pipefail
cd "$(dirname "$0")/../.."
python -m projects.emoji.build
python -m projects.emoji.networks
python -m projects.emoji.train vqgan
python -m projects.emoji.train base
echo "The model is in runs-local/emoji/model; judge it with: python -m projects.emoji.bench --model runs-local/emoji/model"

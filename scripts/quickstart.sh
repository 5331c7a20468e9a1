#!/usr/bin/env bash
# From a bare machine to a trained agent: set-up, games, then SFT and RL on two CPU cores.
#   scripts/quickstart.sh [arguments for lit_agents.fit]

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# games per split of w2-o3-q4, as many as conf/textworld/quickstart.yaml asks for
declare -A games=([train]=256 [sft]=60 [validation]=32 [test]=64)

for split in train sft validation test; do
    python -m lit_agents.tasks textworld --spec w2-o3-q4 --split "$split" --count "${games[$split]}"
done
exec python -m lit_agents.fit --config conf/textworld/quickstart.yaml "$@"

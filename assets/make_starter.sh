#!/usr/bin/env bash
# Makes the starter model again, by the product's own commands. About two hours on two processor cores.
#
#     assets/make_starter.sh WORK
#
# WORK gets the conversations, the tokenizer and the runs; the result replaces assets/starter. Needs requirements-dev.txt.
set -euo pipefail
work=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/.."

python assets/starter_data.py "$work/data"
data=("$work/data/chitchat.jsonl" "$work/data/chatterbot.jsonl")

python -m chat_app tokenizer --data "${data[@]}" --vocab-size 8192 --out "$work/tokenizer"

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

# Large steps find the way; then smaller ones and more of them.
python -m chat_app pretrain --data "${data[@]}" --tokenizer "$work/tokenizer" --size mini \
  --max-steps 264 --batch-size 16 --accumulation 2 --learning-rate 0.003 --warmup 0.28 --schedule constant \
  --out "$work/base"
python -m chat_app train --data "${data[@]}" --model "$work/base" \
  --learn all --optimizer muon --epochs 2.5 --batch-size 16 --learning-rate 0.003 --schedule linear --warmup 0.02 \
  --weight-decay 0.05 --overlap 0 --valid-share 0.01 --patience 0 --out "$work/talker"
# Last, how a chat begins, without forgetting the rest.
python -m chat_app train --data "$work/data/finish.jsonl" --model "$work/talker" \
  --learn all --optimizer muon --epochs 1 --batch-size 16 --learning-rate 0.0005 --schedule linear --warmup 0.05 \
  --weight-decay 0.05 --overlap 0 --valid-share 0.01 --patience 0 --save-as bfloat16 --out "$work/starter"

python -m chat_app evaluate --model "$work/starter" --data "$work/data/heldout.jsonl" --learn all --json
cp "$work/starter/"{config.json,generation_config.json,model.safetensors,tokenizer.json,tokenizer_config.json,chat_format.json} \
  assets/starter/

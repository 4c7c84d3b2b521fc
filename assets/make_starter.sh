#!/usr/bin/env bash
# Makes the starter model again, by the product's own commands. Some hours on two processor cores; each run can be
# stopped and goes on where it was when the script is started again.
#
#     assets/make_starter.sh WORK CORPORA
#
# WORK gets the conversations, the tokenizer and the runs; CORPORA has self_dialogue.jsonl.gz and topical_chat.jsonl.gz.
# The result replaces assets/starter. Needs requirements-dev.txt.
set -euo pipefail
work=$(mkdir -p "$1" && cd "$1" && pwd)
corpora=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."
export CHAT_APP_HOME="$work/home"

# train_run NAME ARGUMENTS...: prepares and trains a run, goes on with one that was stopped, or does nothing if it is done.
train_run() {
  local run="$CHAT_APP_HOME/runs/$1"
  if [ -e "$run/model/model.safetensors" ] && grep -q '"done"' "$run/state.json"; then
    return
  elif [ -e "$run/config.json" ] && [ ! -e "$run/.preparing" ]; then
    python -m chat_app train --resume "$run"
  else
    python -m chat_app "${@:2}" --run "$run"
  fi
}

# mend FILE REPAIR...: the product's own check, which takes out what is private or not to be read.
mend() {
  python -m chat_app inspect "$1" --repair emails html keys mojibake phones bank_accounts cards identity_numbers birth_dates streets machine_addresses "${@:2}" --out "$1.mended.jsonl" >"$1.report.txt"
  mv "$1.mended.jsonl" "$1"
}

if [ ! -e "$work/data/mended" ]; then
  python assets/starter_data.py "$work/data" "$corpora"
  for file in "$work"/data/learn/*.jsonl; do
    mend "$file" duplicates empty_turns one_sided
  done
  mend "$work/data/finish.jsonl"  # Its repetitions are meant.
  touch "$work/data/mended"
fi
data=("$work"/data/learn/*.jsonl)
test -e "$work/tokenizer" || python -m chat_app tokenizer --data "${data[@]}" --vocab-size 8192 --out "$work/tokenizer"

# The language, from all of it.
train_run base pretrain --data "${data[@]}" --valid "$work/data/heldout/chitchat.jsonl" --tokenizer "$work/tokenizer" \
  --size compact --epochs 3 --batch-size 16 --learning-rate 0.003 --warmup 0.05 --schedule linear --evaluate-every 500 \
  --out "$work/base"
# Last, what a chat with the starter sounds like, without forgetting the rest.
train_run finish train --data "$work/data/finish.jsonl" --model "$work/base" --learn all --optimizer muon --epochs 1 \
  --batch-size 16 --learning-rate 0.0007 --schedule linear --warmup 0.05 --weight-decay 0.05 --overlap 0 \
  --valid-share 0.01 --patience 0 --save-as bfloat16 --out "$work/starter"

python -m benchmarks.starter --model starter "$work/starter" --data "$work/data"
cp "$work/starter/"{config.json,generation_config.json,model.safetensors,tokenizer.json,tokenizer_config.json,chat_format.json} \
  assets/starter/

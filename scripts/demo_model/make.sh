#!/bin/sh
# The demo model, from nothing: scripts/demo_model/make.sh STAGE
#
#   corpus     the teacher answers questions (two minutes)
#   written    stories and facts from plots; the teacher picks the stories (two minutes)
#   tokenizer  byte-level BPE of 4,096 tokens (seconds)
#   train      the student (five minutes)
#   refine     the student answers, the teacher picks, the student learns that (six minutes)
#   export     int8 into model/demo; then `make golden`
#   evaluate   the figures of docs/demo-model.md; on a CPU, too (`make demo-eval`)
#   chats      its twenty conversations
#
# A stage whose output is there is skipped: remove the file under .cache/demo to run it anew. corpus, written, train
# and refine want an NVIDIA GPU (times: one H100 or H200); refine uses one, the others all that there are. A virtual
# environment with the packages of requirements.txt is made with $PYTHON (3.11 or newer); PACKAGES=mine uses $PYTHON
# and the packages that it has.
set -eu
case ${1:-} in
corpus | written | tokenizer | train | refine | export | evaluate | chats) ;;
*) sed -n '2,17s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/../.."
here=scripts/demo_model
work=.cache/demo
teacher=.cache/models/smollm2-135m
qwen=testdata/tokenizer/qwen2.5-tokenizer
export TOKENIZERS_PARALLELISM=true PYTHONUNBUFFERED=1

mkdir -p "$work"
scripts/test-model.sh
if [ "${PACKAGES:-}" = mine ]; then
	python=${PYTHON:-python3}
else
	scripts/venv.sh demo "$here/requirements.txt" "torch and transformers (3 GB)"
	python=$PWD/.cache/venv/demo/bin/python
fi
gpus=$(nvidia-smi -L 2>/dev/null | wc -l)

# each SCRIPT OUTPUT ARGUMENTS…: one process a GPU; the output gets its name when it is complete.
each() {
	script=$1 output=$2
	shift 2
	[ "$gpus" -gt 0 ] || { echo "demo_model: $script needs a GPU" >&2; exit 1; }
	pids= rank=0
	while [ "$rank" -lt "$gpus" ]; do
		if [ ! -f "$work/$output.$rank.jsonl" ]; then
			(
				CUDA_VISIBLE_DEVICES=$rank "$python" "$here/$script" "$teacher" "$work/part-$output.$rank.jsonl" --rank "$rank" "$@"
				mv "$work/part-$output.$rank.held.jsonl" "$work/$output.$rank.held.jsonl"
				mv "$work/part-$output.$rank.jsonl" "$work/$output.$rank.jsonl"
			) &
			pids="$pids $!"
		fi
		rank=$((rank + 1))
	done
	for pid in $pids; do wait "$pid"; done
}

# refine STUDENT OUTPUT ARGUMENTS…
refine() {
	from=$1 to=$2
	shift 2
	"$python" "$here/refine.py" "$teacher" "$work/tokenizer" "$work/$from" "$work/$to" "$@" \
		--corpus "$work"/teacher.?.jsonl $(printf '+%s ' "$work"/written.?.jsonl) --held "$work"/*.held.jsonl
}

case $1 in
corpus) each corpus.py teacher --seconds 90 ;;
written) each written.py written --of "$gpus" --stories 130000 --chats 260000 --candidates 4 ;;
tokenizer)
	[ -f "$work/tokenizer/tokenizer.json" ] ||
		"$python" "$here/tokenizer.py" "$qwen.json.gz" "${qwen}_config.json" "$work/tokenizer" "$work"/teacher.?.jsonl "$work"/written.?.jsonl
	;;
train)
	[ -f "$work/student/model.safetensors" ] ||
		"$python" -m torch.distributed.run --nproc-per-node "$gpus" "$here/train.py" "$work/tokenizer" "$work/student" --tokens 330e6 --seconds 240 \
			--corpus "$work"/teacher.?.jsonl $(printf '+%s ' "$work"/written.?.jsonl) --held "$work"/*.held.jsonl
	;;
refine)
	# Four rounds that keep the stories varied, then two that mind the teacher more.
	[ -f "$work/varied/model.safetensors" ] || refine student varied --rounds 4 --rare 0.25
	[ -f "$work/refined/model.safetensors" ] || refine varied refined --rounds 2 --rare 0.12 --first 4
	;;
export) "$python" "$here/export.py" "$work/refined" "$work/tokenizer" model/demo ;;
evaluate) "$python" "$here/evaluate.py" model/demo "$teacher" ;;
chats) "$python" "$here/evaluate.py" --conversations model/demo ;;
esac

// Greedy tokens by transformers.js, under Node. Reads and writes JSON; see ../same_tokens.py.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, basename, join } from "node:path";
import { pathToFileURL } from "node:url";

const job = JSON.parse(readFileSync(0, "utf8"));
const require = createRequire(join(process.cwd(), "index.js"));
const { AutoModelForCausalLM, AutoTokenizer, Tensor, env } = await import(
  pathToFileURL(require.resolve("@huggingface/transformers"))
);
env.allowRemoteModels = false;
env.localModelPath = dirname(job.folder);
const name = basename(job.folder);
const tokenizer = await AutoTokenizer.from_pretrained(name);
const model = await AutoModelForCausalLM.from_pretrained(name, { device: "cpu" });
const answers = [];
for (const prompt of job.prompts) {
  const shape = [1, prompt.tokens.length];
  const input_ids = new Tensor("int64", prompt.tokens.map(BigInt), shape);
  const attention_mask = new Tensor("int64", prompt.tokens.map(() => 1n), shape);
  const count = job.new_tokens;
  const made = await model.generate({
    input_ids,
    attention_mask,
    do_sample: false,
    max_new_tokens: count,
  });
  answers.push({
    encoded: Array.from(tokenizer.encode(prompt.text)),
    tokens: made.tolist()[0].slice(prompt.tokens.length).map(Number),
  });
}
console.log(JSON.stringify({ version: env.version, answers }));

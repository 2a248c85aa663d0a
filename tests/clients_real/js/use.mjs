// openai, anthropic and the AI SDK in their default modes. node use.mjs FUNCTION ADDRESS MODULES: prints JSON as its last line.
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [, , chosen, address, modules] = process.argv;
const require = createRequire(join(modules, 'package.json'));
const QUESTION = 'What is the capital of France?';
const MODEL = 'triune';

async function openai() {
  const OpenAI = require('openai').default;
  const client = new OpenAI({ baseURL: address, apiKey: 'none', maxRetries: 0 });
  const whole = await client.responses.create({ model: MODEL, input: QUESTION, temperature: 0 });
  const streamed = await client.responses.stream({ model: MODEL, input: QUESTION, temperature: 0 }).finalResponse();
  const more = await client.responses.create({ model: MODEL, input: 'And of Spain?', previous_response_id: whole.id, temperature: 0 });
  return { text: whole.output_text, streamed: streamed.output_text, more: more.output_text };
}

async function anthropic() {
  const Anthropic = require('@anthropic-ai/sdk').default;
  const client = new Anthropic({ baseURL: address.replace(/\/v1$/, ''), apiKey: 'none', maxRetries: 0 });
  const ask = { model: MODEL, max_tokens: 4096, temperature: 0, messages: [{ role: 'user', content: QUESTION }] };
  const whole = await client.messages.create(ask);
  return { text: whole.content[0].text, streamed: await client.messages.stream(ask).finalText() };
}

async function ai() {
  const { createOpenAI } = require('@ai-sdk/openai');
  const { createAnthropic } = require('@ai-sdk/anthropic');
  return {
    openai: await aiSdk(createOpenAI({ baseURL: address, apiKey: 'none' })(MODEL)),
    anthropic: await aiSdk(createAnthropic({ baseURL: address, apiKey: 'none' })(MODEL)),
  };
}

async function aiSdk(model) {
  const { generateObject, generateText, stepCountIs, streamText, tool } = require('ai');
  const { z } = require('zod');
  const schema = z.object({ city: z.enum(['Paris', 'Rome']) });
  const weather = tool({ description: 'The weather of a city.', inputSchema: schema, execute: async ({ city }) => `Sunny in ${city}` });
  const ask = {
    model, prompt: 'Weather in Paris?', tools: { weather }, stopWhen: stepCountIs(2), maxOutputTokens: 120, temperature: 0, maxRetries: 0,
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? 'required' : 'none' }),
  };
  const steps = async (result) => (await result.steps).map((step) => [step.finishReason, step.toolCalls.map((call) => call.input), step.text]);
  return {
    text: (await generateText({ model, prompt: QUESTION, temperature: 0, maxRetries: 0 })).text,
    streamed: await streamText({ model, prompt: QUESTION, temperature: 0, maxRetries: 0 }).text,
    object: (await generateObject({ model, prompt: QUESTION, schema, temperature: 0, maxRetries: 0 })).object,
    tools: [await steps(await generateText(ask)), await steps(streamText(ask))],
  };
}

console.log(JSON.stringify(await { openai, anthropic, ai }[chosen]()));

// OpenAI's library for Node: prints what it has seen of an API at an address, as JSON.
import OpenAI from 'openai'

const [url, model] = process.argv.slice(2)
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
const prompt = 'ROMEO:'
const greedy = { model, max_tokens: 40, temperature: 0 }

async function refused(call) {
  try {
    await call()
  } catch (error) {
    return { class: error.constructor.name, status: error.status, code: error.code, param: error.param }
  }
  return null
}

async function streamed() {
  let text = '', end = null, usage = null
  const stream = await client.completions.create({ prompt, stream: true, stream_options: { include_usage: true }, ...greedy })
  for await (const chunk of stream) {
    text += chunk.choices[0]?.text ?? ''
    end = chunk.choices[0]?.finish_reason ?? end
    usage = chunk.usage ?? usage
  }
  return { text, end, usage }
}

async function chatted() {
  const messages = [{ role: 'user', content: prompt }]
  const asked = { model, messages, temperature: 0, max_completion_tokens: 40 }
  const whole = await client.chat.completions.create(asked)
  const stream = client.chat.completions.stream(asked)
  let text = ''
  stream.on('content', (piece) => (text += piece))
  return [whole.choices[0].message.content, await stream.finalContent(), text]
}

async function left() {
  const stream = await client.completions.create({ prompt, stream: true, ...greedy, max_tokens: 4096 })
  for await (const chunk of stream) return chunk.choices[0].text
}

const models = []
for await (const each of client.models.list()) models.push(each.id)
const { data: whole, request_id } = await client.completions.create({ prompt, ...greedy }).withResponse()

console.log(
  JSON.stringify({
    models,
    whole,
    request_id,
    streamed: await streamed(),
    chat: await chatted(),
    left: await left(),
    refused: {
      model: await refused(() => client.completions.create({ model: 'nobody', prompt })),
      suffix: await refused(() => client.completions.create({ prompt, suffix: '!', ...greedy })),
      embeddings: await refused(() => client.embeddings.create({ model, input: 'a' })),
    },
  }),
)

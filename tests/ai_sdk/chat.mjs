// A chat client made of the AI SDK's own parts. Reads {url, text, messageId, cutAfter, resume} from stdin, prints what
// came of it as JSON: the SDK's message, the types of all chunks, the errors that the SDK reported.
//
// resume: "join"   goes on behind the last event that was read (Last-Event-ID), and joins the chunks;
//         "replay" asks for the running turn as the SDK's `useChat({resume: true})` does.
import { AbstractChat, DefaultChatTransport, readUIMessageStream } from "ai";

const given = JSON.parse(await new Response(process.stdin).text());
const ids = []; // of the events of the newest connection, in order
const errors = [];

// The SDK drops event ids, so they are taken from the bytes before it sees them.
async function fetchNotingIds(url, options) {
  const response = await fetch(url, options);
  if (!response.body) return response;
  ids.length = 0;
  let held = "";
  const noting = new TransformStream({
    transform(bytes, controller) {
      held += Buffer.from(bytes).toString("latin1");
      const events = held.split("\n\n");
      held = events.pop();
      for (const event of events) {
        if (/^data:/m.test(event)) ids.push(/^id: ?(.*)$/m.exec(event)?.[1] ?? null);
      }
      controller.enqueue(bytes);
    },
  });
  return new Response(response.body.pipeThrough(noting), response);
}

const transport = new DefaultChatTransport({
  api: given.url,
  fetch: fetchNotingIds,
  prepareReconnectToStreamRequest: ({ api, headers }) => ({ api, headers }),
});
const message = { id: given.messageId, role: "user", parts: [{ type: "text", text: given.text }] };

async function joined() {
  const aborted = new AbortController();
  const send = { trigger: "submit-message", chatId: "c", messageId: undefined, messages: [message] };
  let reader = (await transport.sendMessages({ ...send, abortSignal: aborted.signal })).getReader();
  const chunks = [];
  const types = [];
  let resumed = false;
  const whole = new ReadableStream({
    async pull(controller) {
      if (given.cutAfter === chunks.length && !resumed) {
        resumed = true;
        aborted.abort();
        const headers = { "Last-Event-ID": ids[given.cutAfter - 1] };
        const rest = await transport.reconnectToStream({ chatId: "c", headers });
        if (rest === null) throw new Error("nothing to resume: 204");
        reader = rest.getReader();
      }
      const { done, value } = await reader.read();
      if (done) return controller.close();
      chunks.push(value);
      types.push(value.type);
      controller.enqueue(value);
    },
  });
  let last = null;
  for await (const one of readUIMessageStream({ stream: whole, terminateOnError: true, onError: (e) => errors.push(String(e)) })) {
    last = one;
  }
  return { message: last, types, data: chunks.filter((chunk) => chunk.type.startsWith("data-")) };
}

class Chat extends AbstractChat {
  constructor(init) {
    const state = {
      messages: [],
      status: "ready",
      error: undefined,
      pushMessage: (one) => (state.messages = [...state.messages, one]),
      popMessage: () => (state.messages = state.messages.slice(0, -1)),
      replaceMessage: (at, one) => (state.messages = state.messages.map((old, n) => (n === at ? one : old))),
      snapshot: (value) => structuredClone(value),
    };
    super({ ...init, state });
  }
}

async function replayed() {
  const data = [];
  const chat = new Chat({ transport, onError: (e) => errors.push(String(e)), onData: (part) => data.push(part) });
  const sending = chat.sendMessage(message);
  const text = () => chat.messages.at(-1).parts.filter((part) => part.type === "text").map((part) => part.text).join("");
  while (chat.status !== "error" && (chat.messages.at(-1)?.role !== "assistant" || text().length < given.cutAfter)) {
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  await chat.stop();
  await sending;
  const seen = text().length;
  await chat.resumeStream();
  return { message: chat.messages.at(-1), messages: chat.messages.length, seen, status: chat.status, data };
}

const found = given.resume === "replay" ? await replayed() : await joined();
process.stdout.write(JSON.stringify({ ...found, errors }));
process.exit(0);

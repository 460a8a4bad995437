// What the AI SDK's chat shows after it has read a stream. Reads {sdk, streams} from stdin, prints the messages of each.
const given = JSON.parse(await new Response(process.stdin).text());
const { AbstractChat } = await import(given.sdk);

class Chat extends AbstractChat {
  constructor(init) {
    const state = {
      messages: [],
      status: "ready",
      error: undefined,
      pushMessage: (one) => (state.messages = state.messages.concat(one)),
      popMessage: () => (state.messages = state.messages.slice(0, -1)),
      replaceMessage: (at, one) =>
        (state.messages = [...state.messages.slice(0, at), state.snapshot(one), ...state.messages.slice(at + 1)]),
      snapshot: (value) => structuredClone(value),
    };
    super({ ...init, state });
  }
}

const shown = [];
for (const parts of given.streams) {
  const transport = {
    resumeStreamIsReplay: true,
    reconnectToStream: async () => ReadableStream.from(parts.map((part) => structuredClone(part))),
  };
  const chat = new Chat({ transport });
  await chat.resumeStream();
  shown.push({ messages: chat.messages, error: chat.error === undefined ? null : String(chat.error) });
}
process.stdout.write(JSON.stringify(shown));

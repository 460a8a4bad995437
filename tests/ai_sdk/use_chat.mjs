// Chats as a React page has them, on the AI SDK's own `AbstractChat` and with a bare transport. Reads {sdk, transport,
// api, id, steps, tools} from stdin and prints what every tab shows at the end. Each step names its tab (0 if it does not):
//   open: a tab that has `messages`    send, edit, regenerate, resume, stop: as the methods of useChat
//   until: wait until the last message holds this text, or a part of this type
//   note: the tab's status    pause: so many ms
//   idle: wait until the session at the address runs nothing    post: send an empty request to the address
//   respond: answer the approvals that are asked for; output: put out a call's result; both send by themselves
//   asked: wait until the last message has a tool part in this state, and no request is under way
//   settle: wait until no request of the tab is under way    history: fetch the address, `messages` of the next open
const given = JSON.parse(await new Response(process.stdin).text());
const sdk = await import(given.sdk);
const { AbstractChat, DefaultChatTransport } = sdk;
// As an application writes it that has approvals and tools of its own.
const sendAutomaticallyWhen = given.automatic
  ? (chat) =>
      sdk.lastAssistantMessageIsCompleteWithApprovalResponses?.(chat) || sdk.lastAssistantMessageIsCompleteWithToolCalls(chat)
  : undefined;
// What the client's own tools put out, by name; a call of another one is left to the steps.
const runs = given.runs ?? {};
const { WorkflowChatTransport } = await import("@ai-sdk/workflow/client");

class Chat extends AbstractChat {
  constructor(init) {
    const state = {
      messages: structuredClone(init.messages ?? []),
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

let requests = 0;
const cut = new Set(); // numbers of requests whose connection breaks after so many bytes

// Breaks the connection of a request in the middle, as a network does.
async function fetchNoting(url, options) {
  const number = requests++;
  const response = await fetch(url, options);
  const limit = given.cut?.[number];
  if (limit === undefined || !response.body) return response;
  let seen = 0;
  const breaking = new TransformStream({
    transform(bytes, controller) {
      seen += bytes.length;
      if (seen > limit) controller.error(new TypeError("network error"));
      else controller.enqueue(bytes);
    },
  });
  return new Response(response.body.pipeThrough(breaking), response);
}

const Transport = given.transport === "workflow" ? WorkflowChatTransport : DefaultChatTransport;
const tabs = [];
let history = [];

function open(messages) {
  const errors = [];
  const body = given.tools ? { body: { client_tools: given.tools } } : {};
  const transport = new Transport({ api: given.api, ...body, ...(given.cut ? { fetch: fetchNoting } : {}) });
  const onToolCall = ({ toolCall }) => {
    if (toolCall.toolName in runs) void output({ chat }, toolCall, runs[toolCall.toolName]);
  };
  const onError = (error) => errors.push(String(error));
  const chat = new Chat({ id: given.id, messages, transport, onError, onToolCall, sendAutomaticallyWhen });
  tabs.push({ chat, errors, pending: [], statuses: [] });
}

async function until(tab, wanted) {
  const deadline = Date.now() + 60_000;
  const shown = () => {
    const last = tab.chat.messages.at(-1);
    if (last?.role !== "assistant") return false;
    return last.parts.some((part) => part.type === wanted || (part.type === "text" && part.text.includes(wanted)));
  };
  while (!shown()) {
    if (Date.now() > deadline || tab.chat.status === "error") {
      throw new Error(`no ${wanted}: ${JSON.stringify(tab.chat.messages)} ${tab.errors}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const calls = (tab) => (tab.chat.messages.at(-1)?.parts ?? []).filter((part) => part.toolCallId);

async function asked(tab, state) {
  const deadline = Date.now() + 60_000;
  while (tab.chat.status !== "ready" || !calls(tab).some((part) => part.state === state)) {
    if (Date.now() > deadline || tab.chat.status === "error") {
      throw new Error(`no call is ${state}: ${JSON.stringify(tab.chat.messages)} ${tab.errors}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function respond(tab, response) {
  for (const part of calls(tab).filter((one) => one.state === "approval-requested")) {
    await tab.chat.addToolApprovalResponse({ id: part.approval.id, ...response });
  }
}

async function output(tab, { toolName, toolCallId }, text) {
  const add = tab.chat.addToolOutput ?? tab.chat.addToolResult; // its name until version 5
  await add.call(tab.chat, { tool: toolName, toolCallId, output: text });
}

async function outputOfFirst(tab, text) {
  const part = calls(tab).find((one) => one.state === "input-available");
  await output(tab, { toolName: part.type.slice("tool-".length), toolCallId: part.toolCallId }, text);
}

async function idle(session) {
  const deadline = Date.now() + 60_000;
  while ((await (await fetch(session)).json()).active_turn) {
    if (Date.now() > deadline) throw new Error("its turn does not end");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

open([]);
for (const step of given.steps) {
  const [what, value] = Object.entries(step).find(([name]) => name !== "tab");
  const tab = tabs[step.tab ?? 0];
  if (what === "open") open(history);
  else if (what === "history") history = await (await fetch(value)).json();
  else if (what === "idle") await idle(value);
  else if (what === "post") await fetch(value, { method: "POST" });
  else if (what === "send") tab.pending.push(tab.chat.sendMessage({ text: value }));
  else if (what === "edit") {
    tab.pending.push(tab.chat.sendMessage({ text: value.text, messageId: tab.chat.messages[value.at].id }));
  } else if (what === "regenerate") {
    const messageId = value === true ? undefined : tab.chat.messages[value].id;
    tab.pending.push(tab.chat.regenerate({ messageId }));
  } else if (what === "resume") tab.pending.push(tab.chat.resumeStream());
  else if (what === "stop") await tab.chat.stop();
  else if (what === "until") await until(tab, value);
  else if (what === "pause") await new Promise((resolve) => setTimeout(resolve, value));
  else if (what === "asked") await asked(tab, value);
  else if (what === "respond") await respond(tab, value);
  else if (what === "output") await outputOfFirst(tab, value);
  else if (what === "note") tab.statuses.push(tab.chat.status);
  else if (what === "settle") await Promise.all(tab.pending);
  else throw new Error(`what is ${what}?`);
}
const shown = tabs.map(({ chat, errors, statuses }) => ({
  messages: chat.messages,
  status: chat.status,
  errors,
  statuses,
}));
process.stdout.write(JSON.stringify(shown));
process.exit(0);

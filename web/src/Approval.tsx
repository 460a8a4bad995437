import { useState } from "react";
import { api } from "./api";
import type { ApprovalUpdate } from "./messages";
import { t } from "./texts";

/** A call that waits for its person: consent to a tool, or an answer to a question. */
export function Approval({ approval }: { approval: ApprovalUpdate }) {
  const [text, setText] = useState("");
  const [problem, setProblem] = useState("");
  const [sent, setSent] = useState(false);
  const decide = (body: object) => {
    setSent(true);
    setProblem("");
    api.decide(approval.approval_id, body).catch((error: Error) => {
      setSent(false);
      setProblem(error.message);
    });
  };
  const isQuestion = approval.kind === "question";
  return (
    <form
      aria-label={isQuestion ? t.question : t.approval}
      className="flex flex-col gap-2 rounded-lg border border-primary px-3 py-2 text-sm"
      onSubmit={(event) => {
        event.preventDefault();
        decide(isQuestion ? { answer: text.trim() } : { decision: "allow" });
      }}
    >
      <p>{isQuestion ? t.questionText : t.approvalText(approval.tool_name)}</p>
      <input
        className="field"
        aria-label={isQuestion ? t.answer : t.reason}
        placeholder={isQuestion ? t.answer : t.reason}
        maxLength={4000}
        value={text}
        onChange={(event) => setText(event.target.value)}
      />
      {problem && (
        <p role="alert" className="text-danger">
          {problem}
        </p>
      )}
      <div className="flex flex-wrap gap-2">
        <button className="button button-primary" disabled={sent || (isQuestion && !text.trim())}>
          {isQuestion ? t.answer : t.allow}
        </button>
        {!isQuestion && (
          <button type="button" className="button" disabled={sent} onClick={() => decide({ decision: "allow", scope: "session" })}>
            {t.allowHere}
          </button>
        )}
        <button type="button" className="button" disabled={sent} onClick={() => decide({ decision: "deny", reason: isQuestion ? "" : text.trim() })}>
          {isQuestion ? t.noAnswer : t.deny}
        </button>
      </div>
    </form>
  );
}

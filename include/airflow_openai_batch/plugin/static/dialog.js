// The question before a batch is cancelled, in the browser's own modal dialog: it keeps the focus, Escape closes it.

import { ErrorNotice } from "./parts.js";
import { count, plural } from "./format.js";

const { createElement: h, useEffect, useRef, useState } = globalThis.React;

export function CancelDialog({ shard, onConfirm, onClose }) {
  const dialog = useRef(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  useEffect(() => {
    const opener = document.activeElement;
    dialog.current.showModal();
    return () => opener?.isConnected && opener.focus();
  }, []);
  async function confirm() {
    setBusy(true);
    setError(null);
    try {
      await onConfirm();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  }
  return h(
    "dialog",
    { ref: dialog, className: "oab-dialog", "aria-labelledby": "oab-cancel", onCancel: onClose, onClose },
    h("h3", { id: "oab-cancel" }, `Cancel the batch of shard ${count(shard.shard)}?`),
    h("p", { className: "oab-break" }, h("code", null, shard.batch_id)),
    h(
      "p",
      null,
      `${count(shard.completed)} of ${plural(shard.requests, "request", "requests")} are answered. OpenAI may take `,
      "ten minutes to stop; what it has answered by then is paid for and kept.",
    ),
    h(
      "p",
      null,
      "While the run goes on, it sends the rest again. To stop the shard for good, mark its task failed instead, ",
      "which cancels the batch, too.",
    ),
    h(ErrorNotice, { error, once: true }),
    h(
      "div",
      { className: "oab-dialog-buttons" },
      h("button", { type: "button", className: "oab-button", onClick: onClose, autoFocus: true }, "Keep it"),
      h(
        "button",
        { type: "button", className: "oab-button oab-button-danger", onClick: confirm, disabled: busy },
        busy ? "Cancelling …" : "Cancel batch",
      ),
    ),
  );
}

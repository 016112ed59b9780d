// A page that is read from a disk (file:) may start no worker. The search's runs in a hidden frame there.
if (location.protocol === "file:") {
  // As from and to a worker: a copy, which neither side changes for the other.
  const message = (data) => new MessageEvent("message", { data: structuredClone(data) });
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      inner.postMessage = (data) => this.onmessage?.(message(data));
      const script = inner.document.createElement("script");
      this.ready = new Promise((resolve) => { script.onload = resolve; });
      script.src = new URL(url, location.href).href;
      inner.document.body.append(script);
    }

    postMessage(data) {
      const event = message(data);
      this.ready.then(() => this.frame.contentWindow?.dispatchEvent(event));
    }

    terminate() {
      this.frame.remove();
    }
  };
}

// Search in a folder: a browser starts no Worker for a page of file://, so a hidden frame does its work.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inner = frame.contentWindow
      this.inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      const script = this.inner.document.createElement("script")
      this.loaded = new Promise(resolve => (script.onload = resolve))
      script.src = url
      this.inner.document.body.append(script)
    }

    async postMessage(data) {
      await this.loaded
      this.inner.dispatchEvent(new MessageEvent("message", { data }))
    }
  }

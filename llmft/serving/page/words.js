"use strict";
/* What the page says, by language. {0}, {1} are filled in. */
const WORDS = {
  en: {
    language: "中文", try: "Try", traffic: "Traffic", api: "API", key: "API key", use: "Use", model: "Model",
    answer: "Answer it", example: "Example", explain: "Explain", more: "More fields", optional: "optional", unset: "(none)",
    drop: "Drop an image here, paste it, or choose a file", notImage: "{0} is not an image.", list: "one a line", json: "as JSON",
    label: "Label", score: "Score", part: "Part", weight: "Weight", nothing: "(nothing found)", cut: "The input was longer than the model reads, and was cut.",
    took: "{0} ms, {1} ms of them in the server; model {2}, version {3}", tookOnce: "{0} ms; model {1}, version {2}",
    why: "What speaks for {0}", whyNumber: "What raises the number", for: "for it", against: "against it",
    integrated: "By integrated gradients: {0} words are too many to hide one by one.",
    attention: "Attention, layer by layer", layer: "layer",
    attentionOf: "The share of attention that each token gets where the answer is read, a mean over {0} heads.",
    attentionSome: "The {0} of {1} tokens that get the most.",
    attentionIs: "Attention is not an explanation: it shows where a layer looks, not what decides.",
    right: "Was this right?", yes: "Yes", no: "No", truth: "The right answer", send: "Send", thanks: "Thank you.", rolling: "{0} of the last {2} with feedback: {1}.", metric_accuracy: "Accuracy", metric_subset_accuracy: "Exactly right label sets", metric_mae: "Mean absolute error",
    say: "Message", sendMessage: "Send", stop: "Stop", fresh: "New chat", system: "System prompt", stopped: "(stopped)", broken: "(The answer broke off.)", empty: "(The answer is empty.)",
    requests: "Requests", errors: "Errors", rejected: "Turned away", p50: "Median", p99: "99th percentile", ms: "{0} ms",
    perBucket: "Requests and errors", latency: "Latency: median and 99th percentile, in ms", ago: "{0} s ago", now: "now",
    shares: "Answers by label", drift: "Drift", driftWait: "{0} answers so far; the comparison with training starts at {1}.",
    driftNone: "This model has no reference.json to compare with. Training writes one if at least 50 rows are not trained on.", statistic: "Statistic", value: "Value", limit: "Limit", alarm: "above its limit", accuracy: "By feedback", noTraffic: "No requests yet.",
    full: "The server is busy: its queue is full. Try again in {0} s.", unreachable: "The server cannot be reached. Is it still running?",
    late: "The answer took too long, and the server gave it up. Try a shorter input.", unauthorized: "This server needs a key, and this is not the right one, or there is none yet.",
    tooLarge: "This is larger than the server takes: {0}", loading: "The model is still being loaded.", failed: "The server answered with {0}: {1}", about: "{0}, {1}"
  },
  zh: {
    language: "English", try: "试用", traffic: "流量", api: "接口", key: "API 密钥", use: "使用", model: "模型",
    answer: "预测", example: "示例", explain: "解释", more: "更多字段", optional: "可选", unset: "（空）",
    drop: "把图片拖到这里、粘贴，或选择文件", notImage: "{0} 不是图片。", list: "每行一个", json: "JSON 格式",
    label: "标签", score: "得分", part: "部分", weight: "权重", nothing: "（没有找到）", cut: "输入超过了模型能读的长度，已被截断。",
    took: "{0} 毫秒，其中服务器用了 {1} 毫秒；模型 {2}，版本 {3}", tookOnce: "{0} 毫秒；模型 {1}，版本 {2}",
    why: "哪些部分支持 {0}", whyNumber: "哪些部分使数值变大", for: "支持", against: "反对",
    integrated: "用积分梯度计算：{0} 个词太多，无法逐个遮住。",
    attention: "各层的注意力", layer: "层",
    attentionOf: "读出回答的位置分给每个词元的注意力比例，是 {0} 个头的平均值。",
    attentionSome: "{1} 个词元中注意力最多的 {0} 个。",
    attentionIs: "注意力不是解释：它表示某一层看向哪里，不表示回答由什么决定。",
    right: "预测正确吗？", yes: "正确", no: "不正确", truth: "正确答案", send: "提交", thanks: "谢谢。", rolling: "最近 {2} 条反馈的{0}：{1}。", metric_accuracy: "准确率", metric_subset_accuracy: "标签全对的比例", metric_mae: "平均绝对误差",
    say: "消息", sendMessage: "发送", stop: "停止", fresh: "新对话", system: "系统提示词", stopped: "（已停止）", broken: "（回答中断了。）", empty: "（回答为空。）",
    requests: "请求数", errors: "错误", rejected: "被拒绝", p50: "中位数", p99: "99 百分位", ms: "{0} 毫秒",
    perBucket: "请求与错误", latency: "延迟（毫秒）：中位数与 99 百分位", ago: "{0} 秒前", now: "现在",
    shares: "各标签的占比", drift: "漂移", driftWait: "目前有 {0} 个预测；满 {1} 个后开始与训练数据比较。",
    driftNone: "该模型没有可供比较的 reference.json；若有至少 50 行数据未用于训练，训练时会生成。", statistic: "统计量", value: "值", limit: "界限", alarm: "超过界限", accuracy: "按反馈", noTraffic: "还没有请求。",
    full: "服务器正忙：队列已满。请在 {0} 秒后重试。", unreachable: "无法连接服务器。它还在运行吗？",
    late: "预测用时过长，服务器已放弃。请缩短输入。", unauthorized: "此服务器需要密钥：密钥不正确，或尚未填写。",
    tooLarge: "超出服务器允许的大小：{0}", loading: "模型仍在加载。", failed: "服务器返回 {0}：{1}", about: "{0}，{1}"
  }
};

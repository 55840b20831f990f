"""Chinese in names of structures: what is Chinese, traditional characters as simplified ones, and numbers."""

from __future__ import annotations

import re

# Characters of names of structures, each before its simplified form; lists of Japan have a few forms of their own.
_PAIRS = (
    "腎肾臟脏臓脏膽胆門门靜静脈脉動动腸肠氣气腦脑髖髋側侧兩两雙双頸颈頭头顱颅鎖锁脛胫橈桡腫肿狀状頜颌顎颚頰颊韌韧節节關关縱纵徑径間间質质導导內内結结橫横竇窦葉叶顳颞額额頂顶"
    "體体視视網网淚泪聲声會会軟软樞枢薦骶後后腳脚殼壳齒齿總总無无宮宫陰阴長长圓圆緣缘圍围錐锥個个號号對对區区幹干臍脐維维組组織织顴颧懸悬終终溝沟島岛蒼苍變变積积強强壞坏與与"
    "齦龈頦颏瞼睑鋸锯縫缝闊阔豎竖顏颜貫贯頷颌髕髌蹠跖迴回闌阑橋桥紋纹攝摄護护脣唇細细壓压髒脏莖茎鐙镫鎚锤顬颞閉闭皺皱絡络靭韧擴扩頤颐"
)
TO_SIMPLIFIED = {ord(old): new for old, new in zip(_PAIRS[::2], _PAIRS[1::2])}
DIGITS = "一二三四五六七八九"
NUMBER = rf"(?:\d{{1,2}}|十[{DIGITS}]?|[{DIGITS}])"  # to 19, which is as far as ribs and vertebrae go
_IS_CHINESE = re.compile("[\u3400-\u9fff]")


def is_chinese(text: str) -> bool:
    """True if any character is Chinese."""
    return bool(_IS_CHINESE.search(text))


def simplified(text: str) -> str:
    """The text with simplified characters in place of traditional ones."""
    return text.translate(TO_SIMPLIFIED)


def number_of(text: str) -> int:
    """'12' and '十二' -> 12, of what ``NUMBER`` matches."""
    if text.isdecimal():
        return int(text)
    if text.startswith("十"):
        return 10 + (DIGITS.index(text[1]) + 1 if len(text) > 1 else 0)
    return DIGITS.index(text) + 1
